"""A reader of safetensors files that checks the whole header before it uses any data. This module is torch-free.

A file is eight bytes of header length, a JSON object {name: {dtype, shape, data_offsets}}, and the data without gaps.
"""

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from dfkd_core.errors import TeacherInvalid

MAX_HEADER_BYTES = 16 * 2**20
MAX_METADATA_BYTES = 2**20
MAX_TENSORS = 20_000
MAX_RANK = 8

NUMPY_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}
_SIZES = {"F16": 2, "F32": 4, "F64": 8, "I32": 4, "I64": 8}
_NAME = re.compile(r"[A-Za-z0-9_.:/\-]{1,256}")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of the file: its type, its shape, and the byte offsets of its data from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return all tensors of the file by name, in the order of their data.

    Raises:
        TeacherInvalid: the header or the length of the file is not as the format demands.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        if len(first) < 8:
            _refuse("truncated: it is shorter than its own header")
        (length,) = struct.unpack("<Q", first)
        if not 2 <= length <= MAX_HEADER_BYTES or 8 + length > size:
            _refuse("malformed: the length of its header is impossible or above 16 MiB")
        text = file.read(length)
    entries = _parse(text)
    return _checked(entries, begin=8 + length, size=size)


def _refuse(reason: str) -> NoReturn:
    raise TeacherInvalid(f"the safetensors file is {reason}", hint="Write it with safetensors.torch.save_file.")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_TENSORS + 1:
        _refuse(f"too large: it has more than {MAX_TENSORS} tensors")
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("malformed: a name stands in its header twice")
    return found


def _no_constant(_: str) -> NoReturn:
    _refuse("malformed: its header holds something that is no number")


def _parse(text: bytes) -> dict[str, Any]:
    # Each tensor has one "dtype" in the header, so most files with too many tensors are refused before JSON is parsed.
    if text.count(b'"dtype"') > MAX_TENSORS:
        _refuse(f"too large: it has more than {MAX_TENSORS} tensors")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        _refuse("malformed: its header is not JSON")
    if not isinstance(header, dict):
        _refuse("malformed: its header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse("malformed: its metadata are not strings")
    if sum(len(key) + len(value) for key, value in metadata.items()) > MAX_METADATA_BYTES:
        _refuse("too large: its metadata exceed 1 MiB")
    if not header:
        _refuse("empty: it holds no tensor")
    return header


def _checked(entries: Mapping[str, Any], *, begin: int, size: int) -> dict[str, TensorInfo]:
    infos = {name: _info(name, entry, begin) for name, entry in entries.items()}
    ordered = dict(sorted(infos.items(), key=lambda item: (item[1].start, item[1].end)))
    at = begin
    for info in ordered.values():
        if info.start != at:
            _refuse("malformed: its tensors overlap or leave holes")
        at = info.end
    if at != size:
        _refuse("truncated" if at > size else "malformed: there are bytes behind its last tensor")
    return ordered


def _info(name: str, entry: Any, begin: int) -> TensorInfo:
    if not _NAME.fullmatch(name) or ".." in name:
        _refuse("malformed: a tensor has an invalid name")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _refuse(f"malformed: tensor {name} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise TeacherInvalid(
            f"tensor {name} has an unsupported data type", hint="Store float32 weights: model.float()."
        )
    if not _whole(shape) or len(shape) > MAX_RANK or not _whole(offsets) or len(offsets) != 2:
        _refuse(f"malformed: shape or offsets of tensor {name}")
    if any(dim == 0 for dim in shape):
        _refuse(f"malformed: tensor {name} is empty")
    if offsets[1] - offsets[0] != math.prod(shape) * _SIZES[dtype]:
        _refuse(f"malformed: tensor {name} does not have the bytes that its shape declares")
    return TensorInfo(dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)


def read_tensors(path: Path, header: Mapping[str, TensorInfo]) -> Iterator[tuple[str, Any]]:
    """Yield the name and NumPy array of every tensor, read one at a time; real numbers become float32.

    Raises:
        TeacherInvalid: a tensor holds NaN or infinity.
    """
    import numpy as np

    with path.open("rb") as file:
        for name, info in header.items():
            file.seek(info.start)
            array = np.frombuffer(file.read(info.end - info.start), dtype=NUMPY_TYPES[info.dtype]).reshape(info.shape)
            if array.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    array = array.astype(np.float32)
                if not np.isfinite(array).all():
                    raise TeacherInvalid(
                        f"tensor {name} holds NaN or infinity", hint="Upload a checkpoint from before it diverged."
                    )
            yield name, array
