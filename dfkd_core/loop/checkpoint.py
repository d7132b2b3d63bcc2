"""Checkpoints: each is one safetensors file with JSON in its metadata, written atomically.

A checkpoint carries a fingerprint of the run, and only the same run can read it. A state is a tree of dicts, lists,
numbers, strings, None and tensors. Nothing in a file can be executed.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dfkd_core.errors import CheckpointMismatch
from dfkd_core.images.image_rows import LeftOut, Selection
from dfkd_core.loop.safetensors_stream import write_safetensors
from dfkd_core.spec.compute import Precision
from dfkd_core.spec.config import DistillConfig

WHOLE, WITHOUT_IMAGES = "dfkd-checkpoint-2", "dfkd-checkpoint-3"  # formats; earlier versions read the first one only
HEADER = "dfkd"
KEPT = 2
TENSOR = "__tensor__"
LEFT_OUT = "__left_out__"
PRECISION = "precision"  # a fact of the fingerprint that checkpoints of earlier versions lack
PAIRS = "__pairs__"  # marks a dict whose keys are integers, such as the state of an optimiser


class CheckpointWriter:
    """Writes `checkpoint-<number>.safetensors` into a directory and keeps the last two.

    A checkpoint is due every `every_seconds` seconds. `fingerprint` holds the facts of the caller, such as the digest
    of the teacher and the student's description; the run adds the facts of `fingerprint_of`.
    """

    def __init__(self, directory: Path, *, every_seconds: float, fingerprint: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.fingerprint = dict(fingerprint or {})
        self._every_seconds = every_seconds
        self._last_written = time.monotonic()

    def due(self) -> bool:
        """Return whether the interval has passed since the last checkpoint, or since the start."""
        return time.monotonic() - self._last_written >= self._every_seconds

    def write(self, state: Mapping[str, Any], *, fingerprint: Mapping[str, str]) -> Path:
        """Write one checkpoint and delete all but the last two. The file is on the disk when the method returns."""
        self.directory.mkdir(parents=True, exist_ok=True)
        earlier = written(self.directory)
        number = 1 + (_number(earlier[-1]) if earlier else 0)
        path = self.directory / f"checkpoint-{number:06d}.safetensors"
        write_checkpoint(path, state, fingerprint={**fingerprint, **self.fingerprint})
        for old in earlier[: max(0, len(earlier) + 1 - KEPT)]:
            old.unlink(missing_ok=True)
        self._last_written = time.monotonic()
        return path


def written(directory: Path) -> list[Path]:
    """Return the complete checkpoints of a directory, oldest first."""
    return sorted(directory.glob("checkpoint-*.safetensors"), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint-"))


def write_checkpoint(path: Path, state: Mapping[str, Any], *, fingerprint: Mapping[str, str]) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, rename it, flush the directory."""
    values: dict[str, Tensor | Selection] = {}
    tree = _pack(state, values)
    header = {"format": WITHOUT_IMAGES if _leaves_out(tree) else WHOLE, "fingerprint": dict(fingerprint), "state": tree}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write_safetensors(file, values, metadata={HEADER: json.dumps(header)})
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_directory(path.parent)


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(path: Path, *, fingerprint: Mapping[str, str]) -> dict[str, Any]:
    """Return the state in `path`.

    Raises:
        CheckpointMismatch: the file is damaged, or it was written with another `fingerprint`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
        tensors = {name: _tensor(path, name) for name in names}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    header = _header(path, metadata)
    _check_fingerprint(path, header["fingerprint"], fingerprint)
    state: dict[str, Any] = _unpack(header["state"], tensors)
    return state


def _tensor(path: Path, name: str) -> Tensor:
    """Return a tensor of its own. One of the library's lies in the mapped file, and keeps all of that in memory."""
    with safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
        return tensor.clone()


def precision_of(path: Path) -> Precision:
    """Return the precision in which the run of a checkpoint was computed.

    Checkpoints of earlier versions do not tell; where the spec did not name it, it was fp32.

    Raises:
        CheckpointMismatch: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    return "bf16" if _header(path, metadata)["fingerprint"].get(PRECISION) == "bf16" else "fp32"


def _unreadable(path: Path, error: Exception) -> CheckpointMismatch:
    return CheckpointMismatch(f"{path.name} cannot be read: {error}")


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(metadata.get(HEADER, "{}"))
    if header.get("format") not in {WHOLE, WITHOUT_IMAGES}:
        raise CheckpointMismatch(f"{path.name} is not a file of the format {WITHOUT_IMAGES}")
    return header


def _check_fingerprint(path: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Compare the facts. A precision that the file does not tell is part of its config, which is compared."""
    known = {name: value for name, value in wanted.items() if name != PRECISION or name in found}
    different = [name for name, value in known.items() if found.get(name) != value]
    if different:
        raise CheckpointMismatch(
            f"{path.name} was written by another run: different {', '.join(sorted(different))}",
            hint="resume on a host with the same build and thread count, or start over",
        )


def _pack(value: Any, tensors: dict[str, Tensor | Selection]) -> Any:  # Any: a tree of JSON values and tensors
    if isinstance(value, Tensor | Selection):
        name = f"{len(tensors):05d}"
        tensors[name] = value
        return {TENSOR: name}
    if isinstance(value, LeftOut):
        return {LEFT_OUT: value.sha256}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _pack(item, tensors) for key, item in value.items()}
        return {PAIRS: [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, tensors) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def _leaves_out(tree: Any) -> bool:  # Any: as above
    """Return whether a packed tree lacks images."""
    if isinstance(tree, dict):
        return LEFT_OUT in tree or any(_leaves_out(item) for item in tree.values())
    return isinstance(tree, list) and any(_leaves_out(item) for item in tree)


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:  # Any: as above
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    if LEFT_OUT in value:
        return LeftOut(value[LEFT_OUT])
    if PAIRS in value:
        return {key: _unpack(item, tensors) for key, item in value[PAIRS]}
    return {key: _unpack(item, tensors) for key, item in value.items()}


def fingerprint_of(
    config: DistillConfig, teacher: nn.Module, student: nn.Module, *, device: torch.device
) -> dict[str, str]:
    """Return the facts that a resumed run must share with the checkpoint's run.

    They describe what is computed (config, teacher, student) and what computes it (torch, threads, device).
    """
    return {
        "config": digest_of_config(config),
        PRECISION: config.compute.precision,
        "teacher": _digest_of_weights(teacher),
        "student": hashlib.sha256(repr(_shapes_of(student)).encode()).hexdigest(),
        "torch": f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
    }


def digest_of_config(config: DistillConfig) -> str:
    """Return the sha256 of the config as JSON, without the effort, which decides nothing once it has become numbers."""
    return hashlib.sha256(config.model_dump_json(exclude={"budget": {"effort"}}).encode()).hexdigest()


def _shapes_of(network: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]


def _digest_of_weights(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
