"""Engine: the precision and the kernels with which a run's networks compute, the same code on every device.

A network keeps its fp32 weights, and its inputs and outputs are fp32; only the computation inside differs. Losses,
labels, averages, checkpoints and exports therefore do not depend on the engine, and a copy of a network is an ordinary
network.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.errors import CompileUnavailable
from dfkd_core.networks.recomputation import in_chunks
from dfkd_core.pulse import Pulse
from dfkd_core.spec.compute import Compute

BACKEND = "inductor"
MOST_GRAPHS = 128  # graphs compiled for `_call`; each network, mode and kind of gradient needs its own graph
NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs networks with the precision and the compiler that `distillation.compute` names. Each forward is a beat."""

    compute: Compute = field(default_factory=Compute)
    pulse: Pulse = field(default_factory=Pulse, compare=False)

    @property
    def plain(self) -> bool:
        """True if the engine calls networks without autocast and without the compiler."""
        return not self.narrow and not self.compute.compile

    def in_fp32(self) -> "Engine":
        """Return an engine that computes in fp32 without the compiler, and is otherwise the same."""
        return Engine(self.compute.model_copy(update={"precision": "fp32", "compile": False}), self.pulse)

    @property
    def narrow(self) -> bool:
        """True if convolutions and matrix products compute in bfloat16."""
        return self.compute.precision == "bf16"

    def __call__(self, network: nn.Module, *inputs: Tensor) -> Any:  # Any: what the network returns
        """Compute `network(*inputs)` and return a float32 tensor, or a tuple of float32 tensors."""
        outputs = network(*inputs) if self.plain else self._computed(network, *inputs)
        self.pulse.beat()
        return outputs

    def _computed(self, network: nn.Module, *inputs: Tensor) -> Any:  # Any: as above
        # One autocast for each forward: its cache of narrow weights would outlive an optimiser step.
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=self.narrow):
            # A compiled forward would not run hooks that were added after its compilation.
            compiles = self.compute.compile and not is_watched(network)
            outputs = _compiled(BACKEND)(network, *_sized(inputs)) if compiles else network(*inputs)
        return tuple(map(to_float32, outputs)) if isinstance(outputs, tuple) else to_float32(outputs)

    def in_chunks(self, network: nn.Module, *inputs: Tensor) -> Any:  # Any: what the network returns
        """Return the same for at most `compute.chunk` inputs at a time; see `recomputation`."""
        return in_chunks(partial(self, network), network, *inputs, most=self.compute.chunk)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the same network, computed by this engine when it is called."""
        return network if self.plain else Computed(network, self)

    def to_channels_last(self, network: nn.Module, device: torch.device) -> None:
        """Store the weights in the memory order in which convolutions are fastest; their values stay.

        The order is channels-last for bfloat16 and on a CPU. There it cuts the time of a ResNet's inversion and of a
        generator to two thirds.
        """
        if self.narrow or device.type == "cpu":
            for tensor in (*network.parameters(), *network.buffers()):
                if tensor.dim() == 4:  # nn.Module.to converts those of five dimensions too, and fails
                    tensor.data = tensor.data.to(memory_format=torch.channels_last)


class Computed(nn.Module):
    """A view of a network: the same modules, parameters and hooks, computed by an engine."""

    def __init__(self, network: nn.Module, engine: Engine) -> None:
        super().__init__()
        self.network = network
        self.engine = engine
        self.training = network.training

    def forward(self, *inputs: Tensor) -> Any:  # Any: what the network returns
        """Return the network's outputs."""
        return self.engine(self.network, *inputs)

    @property
    def classifier(self) -> nn.Module | None:
        """The classifier that the network names, or None."""
        return getattr(self.network, "classifier", None)


def to_float32(tensor: Tensor) -> Tensor:
    """Return the tensor as float32 if it is bfloat16 or float16, and unchanged otherwise."""
    return tensor.float() if tensor.dtype in NARROW else tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device; a copy to CUDA runs in parallel with the computation."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def is_watched(network: nn.Module) -> bool:
    """Return whether any module of the network has a forward hook."""
    return any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())


def _call(network: nn.Module, *inputs: Tensor) -> Any:  # Any: what the network returns
    return network(*inputs)


@functools.cache
def _compiled(backend: str) -> Callable[..., Any]:
    """Return `_call` compiled. The weights are inputs of the compiled code, so the network itself is not changed."""
    return torch.compile(_call, backend=backend)


def _sized(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Mark the inputs as batches of any size, so that one compiled graph serves all batch sizes, and return them."""
    for images in inputs:
        torch._dynamo.maybe_mark_dynamic(images, 0)
    return inputs


@contextmanager
def engine_running(engine: Engine, *, device: torch.device) -> Iterator[None]:
    """Apply the process-wide settings that an engine needs, and restore the former settings afterwards.

    Raises:
        CompileUnavailable: the engine compiles, and the compiler does not work on this machine.
    """
    with _matrix_products(device, narrow=engine.narrow):
        if not engine.compute.compile:
            yield
            return
        check_compiler(device)
        with torch._dynamo.config.patch(recompile_limit=MOST_GRAPHS), warnings.catch_warnings():
            # The compiler reads every tensor's gradient, and torch warns about such a read.
            warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor that is not a leaf")
            yield


@contextmanager
def _matrix_products(device: torch.device, *, narrow: bool) -> Iterator[None]:
    """Allow TF32 on CUDA only beside bfloat16; an engine of fp32 computes in full fp32."""
    if device.type != "cuda":
        yield
        return
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if narrow else "highest")
    torch.backends.cudnn.allow_tf32 = narrow
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(precision)


def check_compiler(device: torch.device) -> None:
    """Compile a small function for the device.

    Raises:
        CompileUnavailable: the compilation failed.
    """
    try:
        if device.type == "cpu":
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()  # the trial below may come from a cache and need no compiler
        torch.compile(_trial, backend=BACKEND)(torch.ones(64, device=device))
    except Exception as error:  # the compiler raises exceptions of many kinds
        missing = "a C++ compiler (g++, or what CXX names)" if device.type == "cpu" else "Triton and a C compiler (gcc)"
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": ")
        raise CompileUnavailable(
            f"torch.compile does not work here for {device.type}: {reason}",
            hint=f"install {missing} where the worker runs, or leave distillation.compute.compile false",
            pointer="/distillation/compute/compile",
        ) from error


def _trial(values: Tensor) -> Tensor:
    return values.sin() + 1
