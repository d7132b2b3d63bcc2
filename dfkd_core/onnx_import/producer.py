"""Detection of the program that wrote an ONNX file. This module does not import onnx."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the service imports this module and must not load onnx
    from onnx import ModelProto

DYNAMO, LEGACY = "pytorch-dynamo", "pytorch-legacy"
KNOWN = {  # name of the producer in the file, in lower case → our name of the exporter
    "pytorch": LEGACY,
    "tf2onnx": "tf2onnx",
    "keras2onnx": "keras2onnx",
    "skl2onnx": "skl2onnx",
    "onnxmltools": "onnxmltools",
    "paddlepaddle": "paddle2onnx",
    "paddle2onnx": "paddle2onnx",
    "paddle": "paddle2onnx",
    "matlab deep learning toolbox converter for onnx model format": "matlab",
    "mindspore": "mindspore",
    "cntk": "cntk",
    "chainer": "chainer",
    "onnxsim": "onnxsim",
    "onnxslim": "onnxslim",
    "onnx.quantize": "onnx.quantize",
    "dfkd": "dfkd",
}
HIERARCHY = "pkg.torch.onnx.class_hierarchy"  # key of the classes of modules in the metadata of the newer exporter
PADDLE_GRAPH = "PaddlePaddle"  # graphs of Paddle2ONNX 2 are called so, and name no producer
_VERSION = re.compile(r"([0-9][0-9A-Za-z.+-]{0,31})(?: [0-9A-Za-z]{1,40})?")  # tf2onnx adds a commit, or "None"


def exporter_of(model: "ModelProto") -> tuple[str | None, str | None]:
    """Return the name and version of the exporter, or None if it is not known: other text is not repeated to users.

    Both exporters of PyTorch write the same producer name; only the newer one adds metadata to nodes.
    """
    name = KNOWN.get(model.producer_name.lower())
    if not model.producer_name and model.graph.name.startswith(PADDLE_GRAPH):
        name = "paddle2onnx"
    written = _VERSION.fullmatch(model.producer_version)
    version = written[1] if name and written else None
    if name != LEGACY:
        return name, version
    described = any(entry.key.startswith("pkg.torch.") for node in model.graph.node for entry in node.metadata_props)
    newer = described or any(node.name.startswith("node_") for node in model.graph.node)
    return (DYNAMO if newer else LEGACY), version
