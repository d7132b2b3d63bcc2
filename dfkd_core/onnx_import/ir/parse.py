"""Parsing of an ONNX file, which must hold one graph, operators of the default domain, whole tensors and valid names.

These checks run before onnx.checker, shape inference or ONNX Runtime read the file, because a model of 2 KB can make
them run without end. This module uses only the protobuf classes of onnx, and does not import torch.
"""

import math
import mmap
import re
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no stubs
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from dfkd_core.errors import OperatorUnsupported, TeacherInvalid
from dfkd_core.onnx_import.advice import one_file_hint, operators_hint, opset_hint, refused_nodes
from dfkd_core.onnx_import.ir.protobuf_scan import check_wire
from dfkd_core.onnx_import.producer import exporter_of

MAX_OPSET = 24
MIN_IR_VERSION, MAX_IR_VERSION = 3, 13
MAX_RANK = 8
MAX_EXTENT = 2**40  # product of all sizes of a tensor that are not 0
MAX_NAME = 512
MAX_FILE_BYTES = 2**31 - 1

Array = NDArray[np.generic]

_NAME = re.compile(r"[\w.:/\-+|@#$%&=<>,;()\[\]{} ]*")
_STORED: dict[int, tuple[np.dtype[np.generic], str]] = {  # type → (element, field of values besides raw_data)
    TensorProto.FLOAT: (np.dtype("<f4"), "float_data"),
    TensorProto.DOUBLE: (np.dtype("<f8"), "double_data"),
    TensorProto.FLOAT16: (np.dtype("<f2"), "int32_data"),
    TensorProto.INT64: (np.dtype("<i8"), "int64_data"),
    TensorProto.INT32: (np.dtype("<i4"), "int32_data"),
    TensorProto.BOOL: (np.dtype("?"), "int32_data"),
    TensorProto.UINT8: (np.dtype("u1"), "int32_data"),
    TensorProto.INT8: (np.dtype("i1"), "int32_data"),
}
_VALUES = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")
_GRAPH_KINDS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def read_model(path: Path) -> ModelProto:
    """Parse and check a file but for the attributes of its nodes, for which there is `check_nodes`.

    Raises:
        TeacherInvalid: the file is broken or too large, or keeps its tensors in other files.
    """
    model = ModelProto()
    if not 0 < path.stat().st_size <= MAX_FILE_BYTES:
        raise TeacherInvalid("the ONNX file is empty or larger than 2 GiB")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        try:
            check_wire(view)
            model.ParseFromString(view)
        except DecodeError as error:
            raise TeacherInvalid("malformed ONNX file: it is not a protobuf message") from error
        finally:
            view.release()
    check_model(model)
    return model


def check_model(model: ModelProto) -> None:
    """Check the names, versions and tensors of a model, and that no value is used before it is defined.

    Raises:
        TeacherInvalid: the model is broken.
    """
    _check_names(model)
    _check_versions(model)
    exporter, _ = exporter_of(model)
    for tensor in model.graph.initializer:
        check_tensor(tensor, exporter)
    _check_order(model.graph)


def opset_of(model: ModelProto) -> int:
    """Return the version of the default operator set that the model imports."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _check_versions(model: ModelProto) -> None:
    if not MIN_IR_VERSION <= model.ir_version <= MAX_IR_VERSION:
        raise TeacherInvalid(
            f"unsupported ONNX IR version {model.ir_version}; {MIN_IR_VERSION} to {MAX_IR_VERSION} are read",
            hint="Save it with another one: python -c \"import onnx; model = onnx.load('model.onnx'); "
            "model.ir_version = 10; onnx.save(model, 'teacher.onnx')\"",
        )
    versions = sorted({entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")})
    if len(versions) != 1 or not 1 <= versions[0] <= MAX_OPSET:
        found = ", ".join(map(str, versions)) or "none"
        raise TeacherInvalid(
            f"unsupported opset ({found}); opsets 1 to {MAX_OPSET} are read",
            hint=opset_hint(exporter_of(model)[0]),
        )


def check_nodes(model: ModelProto) -> None:
    """Check the attributes of the nodes of a model, and that they are plain nodes of the default domain.

    Raises:
        TeacherInvalid: a tensor in an attribute is broken.
        OperatorUnsupported: a node has a sub-graph or belongs to a custom domain.
    """
    refused = [(node, reason) for node in model.graph.node if (reason := _refusal(node))]
    if refused:
        lines = [reason for _, reason in refused]
        raise OperatorUnsupported(
            refused_nodes(lines),
            nodes=lines[:100],
            hint=operators_hint(model, [node for node, _ in refused]),
        )


def _refusal(node: NodeProto) -> str | None:
    name = f"{readable(node.name)}: {readable(node.op_type)}"
    if node.domain not in ("", "ai.onnx"):
        return f"{name} — domain {readable(node.domain)}"
    if any(
        attribute.type in _GRAPH_KINDS or attribute.HasField("g") or attribute.graphs for attribute in node.attribute
    ):
        return f"{name} — has a sub-graph"
    if any(attribute.sparse_tensors or attribute.HasField("sparse_tensor") for attribute in node.attribute):
        return f"{name} — has a sparse tensor"
    if any(attribute.ref_attr_name for attribute in node.attribute):
        return f"{name} — refers to a function's attribute"
    for attribute in node.attribute:
        for tensor in [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]:
            check_tensor(tensor)
    return None


def _kind(number: int) -> str:
    """Return the name of an element type, or its number if ONNX has no name for it."""
    known = TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(number)).lower() if number in known else str(number)


def check_tensor(tensor: TensorProto, exporter: str | None = None) -> None:
    """Check that a tensor of a file that `exporter` wrote is whole.

    Raises:
        TeacherInvalid: the tensor is in another file, or has a type or shape that is not supported, or does not hold
            as many values as it declares.
    """
    name = readable(tensor.name)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise TeacherInvalid(
            f"tensor {name} lies in another file",
            hint=one_file_hint(exporter),
        )
    if tensor.HasField("segment"):
        raise TeacherInvalid(f"tensor {name} is stored in segments")
    stored = _STORED.get(tensor.data_type)
    if stored is None:
        raise TeacherInvalid(
            f"tensor {name} has an unsupported data type ({_kind(tensor.data_type)})", hint="Store float32 weights."
        )
    sizes = [max(1, dim) for dim in tensor.dims]  # an empty tensor may declare sizes that NumPy cannot represent
    if len(sizes) > MAX_RANK or any(dim < 0 for dim in tensor.dims) or math.prod(sizes) > MAX_EXTENT:
        raise TeacherInvalid(f"tensor {name} has an invalid shape")
    element, field = stored
    count = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        typed = any(len(getattr(tensor, other)) for other in _VALUES)
        whole = len(tensor.raw_data) == count * element.itemsize and not typed
    else:
        whole = len(getattr(tensor, field)) == count and not any(len(getattr(tensor, o)) for o in _VALUES if o != field)
    if not whole:
        raise TeacherInvalid(f"tensor {name} does not hold the values that its shape declares")


def array_of(tensor: TensorProto) -> Array:
    """Return the values of a tensor that `check_tensor` has accepted; float16 and float64 become float32."""
    element, field = _STORED[tensor.data_type]
    if tensor.HasField("raw_data"):
        array: Array = np.frombuffer(tensor.raw_data, dtype=element)
    elif tensor.data_type == TensorProto.FLOAT16:
        array = np.array(tensor.int32_data, dtype=np.uint16).view(np.float16)
    else:
        array = np.array(getattr(tensor, field), dtype=element)
    return to_single(array.reshape(tuple(tensor.dims)))


def to_single(array: Array) -> Array:
    """Return the array with real numbers in float32; a finite number beyond its range becomes the largest one."""
    if array.dtype.kind != "f" or array.dtype == np.float32:
        return array
    if array.dtype == np.float64:
        largest = float(np.finfo(np.float32).max)
        array = np.where(np.isfinite(array), np.clip(array, -largest, largest), array)
    return array.astype(np.float32)


def readable(name: str | bytes) -> str:
    """Return a name from the file, made printable and short enough for a message."""
    if isinstance(name, bytes):  # protobuf returns bytes for a name that is not UTF-8
        name = name.decode("latin-1")
    shown = "".join(char if char.isprintable() else "?" for char in name[:60])
    return (shown + "…" if len(name) > 60 else shown) or "(unnamed)"


def _check_names(model: ModelProto) -> None:
    graph = model.graph
    values = (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    for name in (*(entry.domain for entry in model.opset_import), *values):
        _check_name(name)
    for node in graph.node:
        attributes = (entry.name for entry in node.attribute)
        for name in (*node.input, *node.output, node.name, node.op_type, node.domain, *attributes):
            _check_name(name)


def _check_name(name: str | bytes) -> None:
    if isinstance(name, bytes) or len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise TeacherInvalid(f"invalid name in the ONNX graph: {readable(name)}")


def _check_order(graph: GraphProto) -> None:
    """Check that each value is defined exactly once and before its use, which also excludes cycles."""
    defined: set[str] = set()

    def define(name: str) -> None:
        if name in defined:
            raise TeacherInvalid(f"invalid ONNX graph: {readable(name)} is defined twice")
        defined.add(name)

    for tensor in graph.initializer:
        define(tensor.name)
    for value in graph.input:  # old IR versions list their initializers among the inputs
        if value.name not in defined:
            define(value.name)
    for node in graph.node:
        for name in node.input:
            if name and name not in defined:
                raise TeacherInvalid(f"invalid ONNX graph: {readable(name)} is used before it is defined")
        for name in node.output:
            if name:
                define(name)
    for value in graph.output:
        if value.name not in defined:
            raise TeacherInvalid(f"invalid ONNX graph: output {readable(value.name)} is not defined")
