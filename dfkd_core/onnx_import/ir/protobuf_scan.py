"""A scan of the protobuf fields of an ONNX file, which counts nodes and tensors before a parser allocates memory.

The scan visits only the two outermost levels (model and graph), so its time is linear in the number of nodes and
tensors. This module uses the standard library only.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from dfkd_core.errors import TeacherInvalid

MAX_NODES = 50_000
MAX_TENSORS = 20_000
MAX_ENTRIES = 200_000  # all other fields of model and graph together: value_info, inputs, metadata

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MODEL_FIELDS = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 14: BYTES, 20: BYTES}
MODEL_FIELDS |= {25: BYTES, 26: BYTES}
GRAPH_FIELDS = {
    1: BYTES,
    2: BYTES,
    5: BYTES,
    10: BYTES,
    11: BYTES,
    12: BYTES,
    13: BYTES,
    14: BYTES,
    15: BYTES,
    16: BYTES,
}
VERSION, PRODUCER, GRAPH, OPSETS, TRAINING_INFO, FUNCTIONS = 1, 2, 7, 8, 20, 25
TEXTS = {2, 3, 4}  # name and version of the producer, domain
MOST_VERSION = 2**16  # of the intermediate representation; 13 is the newest
MOST_TEXT = 1024
NODE, INITIALIZER, SPARSE_INITIALIZER = 1, 5, 15


DAMAGED_HINT = "The file is damaged, or is no ONNX: check it with onnx.checker.check_model(path), and write it again."


class Field(NamedTuple):
    """One protobuf field: its number, its wire type, and the offsets between which its value lies."""

    number: int
    wire_type: int
    start: int
    end: int


class Truncated(ValueError):
    """The bytes end inside a field."""


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return the unsigned integer that begins at offset `at`, and the offset after it.

    Raises:
        Truncated: the data end inside the number.
        ValueError: the number is longer than 64 bits.
    """
    value = shift = 0
    while True:
        if at >= len(data):
            raise Truncated("it ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")


def fields(data: bytes | memoryview, start: int, end: int, known: dict[int, int]) -> Iterator[Field]:
    """Yield the fields between two offsets; `known` maps the field numbers of the message to their wire types.

    Raises:
        Truncated: the data end inside a field.
        ValueError: the message has no such field.
    """
    at = start
    while at < end:
        key, at = read_varint(data, at)
        number, wire_type = key >> 3, key & 7
        if known.get(number) != wire_type:
            raise ValueError(f"field {number} does not belong here")
        if wire_type == VARINT:
            _, behind = read_varint(data, at)
            yield Field(number, wire_type, at, behind)
        else:
            length, at = read_varint(data, at)
            behind = at + length
            if behind > end:
                raise Truncated("it ends before what it declares")
            yield Field(number, wire_type, at, behind)
        at = behind


def looks_like_onnx(first_bytes: bytes) -> bool:
    """Return whether a file that begins with these bytes can be ONNX: its first fields are those of a model."""
    seen: set[int] = set()
    at = 0
    while at < len(first_bytes):
        try:
            key, at = read_varint(first_bytes, at)
            value, behind = read_varint(first_bytes, at)
        except ValueError:  # the bytes end inside a number, or it is longer than numbers are
            break
        number, wire_type = key >> 3, key & 7
        if MODEL_FIELDS.get(number) != wire_type:
            return len(seen) > 1  # the fields so far may fit; `check_wire` later checks the whole file
        content = first_bytes[behind : behind + value] if wire_type == BYTES else b""
        if not _plausible(number, value, content):
            return False
        seen.add(number)
        at = behind + value if wire_type == BYTES else behind
    return bool(seen & {VERSION, PRODUCER, OPSETS})


def _plausible(number: int, value: int, content: bytes) -> bool:
    """Return whether a field of a model can have this number, or this length and (first) content."""
    if number == VERSION:
        return 0 < value <= MOST_VERSION
    if number in TEXTS:
        return value <= MOST_TEXT and b"\x00" not in content
    if number == GRAPH and content:
        return GRAPH_FIELDS.get(content[0] >> 3) == content[0] & 7 or content[0] & 0x80 != 0
    return True


def check_wire(data: bytes | memoryview) -> Counter[str]:
    """Check the structure of an ONNX file; the numbers of its nodes, tensors and other entries.

    Raises:
        TeacherInvalid: the file is truncated or malformed, has functions, a training graph or sparse tensors, or has
            too many nodes, tensors or other entries.
    """
    try:
        return _count(data)
    except ValueError as error:
        raise TeacherInvalid(f"malformed ONNX file: {error}", hint=DAMAGED_HINT) from None


def _count(data: bytes | memoryview) -> Counter[str]:
    counts: Counter[str] = Counter()
    graphs = []
    for field in _model_fields(data):
        if field.number == FUNCTIONS:
            raise TeacherInvalid(
                "the ONNX file has local functions",
                hint="Inline them first: onnx.save(onnx.inliner.inline_local_functions(model), 'teacher.onnx')",
            )
        if field.number == TRAINING_INFO:
            raise TeacherInvalid("the ONNX file has a training graph", hint="Export the model for inference.")
        _increment(counts, "entries", MAX_ENTRIES)
        if field.number == GRAPH:
            graphs.append(field)
    if not graphs:
        raise TeacherInvalid("the ONNX file holds no graph, only its heading", hint=DAMAGED_HINT)
    if len(graphs) > 1:
        raise TeacherInvalid(f"the ONNX file has {len(graphs)} graphs, not one", hint=DAMAGED_HINT)
    for field in fields(data, graphs[0].start, graphs[0].end, GRAPH_FIELDS):
        if field.number == SPARSE_INITIALIZER:
            raise TeacherInvalid("the ONNX file has sparse tensors", hint="Store the weights as dense tensors.")
        if field.number == NODE:
            _increment(counts, "nodes", MAX_NODES)
        elif field.number == INITIALIZER:
            _increment(counts, "tensors", MAX_TENSORS)
        else:
            _increment(counts, "entries", MAX_ENTRIES)
    return counts


def _model_fields(data: bytes | memoryview) -> Iterator[Field]:
    """Yield the fields of the model.

    Raises:
        TeacherInvalid: the file ends before its last field does.
        ValueError: a field does not belong to a model.
    """
    try:
        yield from fields(data, 0, len(data), MODEL_FIELDS)
    except Truncated as error:
        raise TeacherInvalid(
            f"the ONNX file is cut short: after {len(data):,} bytes {error}",
            hint="Copy or download the whole file again.",
        ) from None


def _increment(counts: Counter[str], what: str, limit: int) -> None:
    counts[what] += 1
    if counts[what] > limit:
        raise TeacherInvalid(f"the ONNX file has more than {limit} {what}")
