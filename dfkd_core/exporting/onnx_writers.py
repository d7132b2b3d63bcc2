"""Both of PyTorch's ONNX exporters, each with the options that keep BatchNormalization, and without their noise."""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dfkd_core.output.onnx_export import strip_documentation

INPUT, OUTPUT = "images", "logits"
_NOISY = ("torch", "onnxscript", "onnx_ir")  # loggers of the exporters, with all below them


@dataclass(frozen=True, slots=True)
class Writer:
    """One exporter. `write` takes network, images (N, C, H, W), path, operator set, and whether the batch is fixed."""

    name: str
    lowest_opset: int
    write: Callable[[nn.Module, Tensor, Path, int, bool], None]


def write_onnx(writer: Writer, network: nn.Module, images: Tensor, path: Path, *, opset: int, fixed: bool) -> None:
    """Write one ONNX file that holds its weights, without names of files of this machine.

    What the exporter says is kept back. If it fails, its exception carries what it said as a note.
    """
    import onnx

    with _kept_back(), torch.no_grad():
        writer.write(network, images, path, max(opset, writer.lowest_opset), fixed)
    model = onnx.load(path)
    strip_documentation(model)  # the documentation holds paths of this machine
    path.write_bytes(model.SerializeToString(deterministic=True))


def _legacy(network: nn.Module, images: Tensor, path: Path, opset: int, fixed: bool) -> None:
    training = torch.onnx.TrainingMode.PRESERVE
    if is_scripted(network):  # the exporter traces no compiled code, but it takes a trace that holds some
        network = torch.jit.trace(network, images, check_trace=False)  # type: ignore[no-untyped-call]
        training = torch.onnx.TrainingMode.EVAL
    torch.onnx.export(
        network,
        (images,),
        str(path),
        dynamo=False,
        training=training,
        do_constant_folding=False,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes=None if fixed else {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
    )


def is_scripted(network: nn.Module) -> bool:
    """Return whether the network, or a part of it, is TorchScript."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in network.modules())


def _newer(network: nn.Module, images: Tensor, path: Path, opset: int, fixed: bool) -> None:
    torch.onnx.export(
        network,
        (images,),
        str(path),
        dynamo=True,
        optimize=False,
        external_data=False,
        verbose=False,
        opset_version=opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=None if fixed else ({0: torch.export.Dim("batch")},),
    )


WRITERS = (Writer("legacy", 11, _legacy), Writer("newer", 18, _newer))
"""In the order in which they are tried. Each reads some networks that the other one cannot."""


@contextlib.contextmanager
def _kept_back() -> Iterator[None]:
    """Keep what the exporters print, log and warn from the user; add it to an exception that comes out."""
    said = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            _without_logs(),
            _without_graphs(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            warnings.simplefilter("ignore")  # about the exporters themselves, and about constants in traces
            yield
    except Exception as error:
        if said.getvalue().strip():
            error.add_note(said.getvalue().strip())
        raise


@contextlib.contextmanager
def _without_graphs() -> Iterator[None]:
    """Drop the graph that the legacy exporter prints where it fails: its C++ code writes past Python's streams."""
    stderr = 2
    kept = os.dup(stderr)
    torch._C._jit_set_onnx_log_output_stream("stderr")  # the one that is not buffered
    try:
        with tempfile.TemporaryFile() as dropped:
            os.dup2(dropped.fileno(), stderr)
            yield
    finally:
        os.dup2(kept, stderr)
        os.close(kept)
        torch._C._jit_set_onnx_log_output_stream("stdout")  # where it writes by default


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Silence the loggers of the exporters: those that exist, and through their parents those that are made here."""
    parents = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in parents]
    known = [logging.getLogger(name) for name in logging.getLogger().manager.loggerDict]
    quieted = [logger for logger in known if logger.name.partition(".")[0] in _NOISY and not logger.disabled]
    for logger in parents:
        logger.setLevel(logging.CRITICAL + 1)
    for logger in quieted:
        logger.disabled = True
    try:
        yield
    finally:
        for logger in quieted:
            logger.disabled = False
        for logger, level in zip(parents, levels, strict=True):
            logger.setLevel(level)
