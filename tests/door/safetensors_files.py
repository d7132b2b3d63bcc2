"""B-090 to B-102: safetensors. Every fault of a header is found without reading the tensors."""

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dfkd_core.architectures import describe
from tests.door.door import Door, Input, Octets, Reply, Send

BROKEN = (422, "teacher-invalid")
MISMATCH = (422, "teacher-mismatch")
NUMPY_NAMES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}


def entry(shape: Sequence[Any], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def written(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with this header, a document or bytes, whose length may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensors(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """A plain file."""
    names = {np.dtype(stored): name for name, stored in NUMPY_NAMES.items()}
    header, data = {}, b""
    for name, array in arrays.items():
        content = array.tobytes()
        header[name] = entry(array.shape, len(data), len(data) + len(content), names[array.dtype])
        data += content
    return written(header, data)


def of_architecture(name: str, change: Callable[[dict[str, Any]], None] | None = None) -> bytes:
    """A good file of an architecture for 1 × 32 × 32 images and 10 classes, or a changed one."""
    random = np.random.default_rng(0)
    shapes = describe(name, input_shape=(1, 32, 32), num_classes=10).tensors()
    arrays = {key: random.standard_normal(shape).astype(np.float32) * np.float32(0.1) for key, shape in shapes.items()}
    if change is not None:
        change(arrays)
    return tensors(arrays)


GOOD = tensors({"weight": np.ones((2, 2), np.float32)})
EIGHT = bytes(8)


def as_lenet5(content: bytes) -> Send:
    """POST /jobs that calls it a LeNet-5."""
    told = {"architecture": "lenet5", "input": {"shape": [1, 32, 32]}, "num_classes": 10}
    text = json.dumps({"student": {"architecture": "lenet5_half"}, "teacher": told}).encode()
    return lambda door: door.parts(("spec", text), ("teacher", content))


def broken(
    row: str, files: Mapping[str, bytes | Callable[[], bytes]], *, hint: bool = True, slow: bool = False
) -> Iterator[Input]:
    for number, (what, content) in enumerate(files.items()):
        yield Input(row, what, Octets(content), *BROKEN, hint=hint, slow=slow or number > 0)


def a_million_tensors(door: Door) -> Reply:
    text = (
        b"{" + b",".join(b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % at for at in range(10**6)) + b"}"
    )
    return door.teacher(written(text))


def many_tensors(count: int) -> bytes:
    return written({f"t{at}": entry([1], 4 * at, 4 * at + 4) for at in range(count)}, bytes(4 * count))


def one(**changes: Any) -> bytes:
    """One tensor of two floats, described wrongly."""
    return written({"weight": {**entry([2], 0, 8), **changes}}, EIGHT)


def weights(value: float, dtype: type = np.float32) -> bytes:
    return tensors({"weight": np.full((4, 4), value, dtype)})


INPUTS = [
    *broken(
        "B-090",
        {
            "2⁶³": written({"weight": entry([2], 0, 8)}, EIGHT, length=2**63),
            "200 MB": written(b"{}" + bytes(99), length=2 * 10**8),
            "longer than the file": written(b'{"a":1}', length=1000),
            "0": written(b"{" + bytes(99), length=0),
            "16 MiB + 1": lambda: written(b"{" + b" " * 2**24, length=2**24 + 1),
        },
    ),
    *broken(
        "B-091",
        {
            "no JSON": written(b'{"weight": nothing}', EIGHT),
            "no UTF-8": written(b'{"\xff\xfe": 1}', EIGHT),
            "100,000 deep": written(b'{"a":' + b"[" * 100_000, EIGHT),
            "an array within": written({"a": []}, EIGHT),
            "the same name twice": written(b'{"a":%s,"a":%s}' % ((json.dumps(entry([1], 0, 4)).encode(),) * 2), EIGHT),
            "NaN": written(b'{"a": NaN}', EIGHT),
            "an integer of 5,000 digits": written(b'{"a": %s}' % (b"9" * 5000), EIGHT),
            "a lone surrogate": written(b'{"\\ud800": 1}', EIGHT),
            "empty": written(b"{}"),
        },
    ),
    Input("B-091", "an array", Octets(written([1, 2])), 415, "format-unsupported", hint=True),
    *broken(
        "B-092",
        {
            "product of 2⁶⁴ + 4": one(shape=[2**33, 2**31 + 1]),
            "negative": one(shape=[-2]),
            "fraction": one(shape=[2.0]),
            "2⁴⁰ × 0": written({"weight": entry([2**40, 0], 0, 0)}),
            "true": one(shape=[True, 2]),
            "2¹⁰⁰": one(shape=[2**100]),
            "a text": one(shape="2"),
            "null": one(shape=None),
        },
    ),
    *broken(
        "B-093",
        {
            "hole": written({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
            "overlap": written({"a": entry([1], 0, 4), "b": entry([1], 2, 6)}, bytes(6)),
            "past the end": one(data_offsets=[4, 12]),
            "reversed": one(data_offsets=[8, 0]),
            "three": one(data_offsets=[0, 4, 8]),
            "shared": written({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, EIGHT),
            "2⁶⁴": one(data_offsets=[2**64, 2**64 + 8]),
        },
    ),
    *broken("B-094", {"a byte too many": GOOD + b"x", "a byte too few": GOOD[:-1]}),
    *broken("B-095", {name: one(dtype=name) for name in ("X99", "F8_E4M3", "BF16", "C64", "BOOL", "")}),
    Input("B-095", "a data type that is a list", Octets(one(dtype=["F32"])), *BROKEN, slow=True),
    *broken(
        "B-096",
        {
            what: written({name: entry([2], 0, 8)}, EIGHT)
            for what, name in {
                "../": "../x",
                "NUL": "a\0b",
                "line break": "a\nb",
                "1 MB": "n" * 10**6,
                "empty": "",
                "spaces": "a b",
                "é": "é",
            }.items()
        },
    ),
    *broken("B-097", {"all of size 1": one(shape=[1] * 100_000)}),
    Input("B-098", "in a header of 54 MB", a_million_tensors, *BROKEN, hint=True, slow=True),
    Input("B-098", "20,001", Octets(lambda: many_tensors(20_001)), *BROKEN, hint=True),
    *broken(
        "B-099",
        {
            "no strings": written({"__metadata__": {"a": 1}, "weight": entry([2], 0, 8)}, EIGHT),
            "a list": written({"__metadata__": ["a"], "weight": entry([2], 0, 8)}, EIGHT),
            "2 MB": written({"__metadata__": {"a": "x" * 2 * 10**6}, "weight": entry([2], 0, 8)}, EIGHT),
            "90 MB": lambda: written(b'{"__metadata__":{"a":"' + b"x" * 90_000_000 + b'"}}'),
        },
    ),
    Input(
        "B-100",
        "missing",
        as_lenet5(of_architecture("lenet5", lambda arrays: arrays.popitem())),
        *MISMATCH,
        pointer="/teacher/architecture",
        hint=True,
    ),
    Input(
        "B-100",
        "too many",
        as_lenet5(of_architecture("lenet5", lambda arrays: arrays.update(extra=np.ones(1, np.float32)))),
        *MISMATCH,
        pointer="/teacher/architecture",
        hint=True,
        slow=True,
    ),
    Input(
        "B-100",
        "2,000 too many",
        as_lenet5(
            of_architecture(
                "lenet5", lambda arrays: arrays.update({f"x{at}": np.ones(1, np.float32) for at in range(2000)})
            )
        ),
        *MISMATCH,
        pointer="/teacher/architecture",
        hint=True,
        slow=True,
    ),
    Input(
        "B-100",
        "of another shape",
        as_lenet5(
            of_architecture("lenet5", lambda arrays: arrays.update({next(iter(arrays)): np.ones((3, 3), np.float32)}))
        ),
        *MISMATCH,
        pointer="/teacher/architecture",
        hint=True,
        slow=True,
    ),
    *(
        Input("B-101", what, Octets(content), *BROKEN, hint=True, slow=number > 0)
        for number, (what, content) in enumerate(
            {
                "NaN": weights(np.nan),
                "infinity": weights(np.inf),
                "float64 beyond float32": weights(1e300, np.float64),
            }.items()
        )
    ),
    *(
        Input("B-101", f"{what}: the job will say", Octets(weights(value)), 201, slow=True)
        for what, value in {"zeros": 0.0, "denormals": 1e-42, "1e38": 1e38}.items()
    ),
    Input(
        "B-102",
        "a ResNet for a LeNet",
        as_lenet5(of_architecture("resnet20")),
        *MISMATCH,
        pointer="/teacher/architecture",
        hint=True,
    ),
]
