"""Writes a safetensors file value by value, so that a large bank of images is never in memory as a whole.

The library's own `save` returns the whole file as bytes. The format is a length (8 bytes, little endian), a header in
JSON, and the values without gaps: https://github.com/huggingface/safetensors#format.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import torch
from torch import Tensor

from dfkd_core.images.image_rows import Selection

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNMENT = 8


def write_safetensors(file: BinaryIO, values: Mapping[str, Tensor | Selection], *, metadata: Mapping[str, str]) -> None:
    """Write `values` by name with `metadata`; equal values give equal bytes."""
    names = sorted(values, key=lambda name: (-values[name].dtype.itemsize, name))  # so that all are aligned
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        value = values[name]
        begin, end = end, end + math.prod(value.shape) * value.dtype.itemsize
        header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in names:
        for part in _parts(values[name]):
            file.write(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _parts(value: Tensor | Selection) -> Iterator[Tensor]:
    if isinstance(value, Selection):
        yield from value.parts()
    elif value.numel():
        yield value
