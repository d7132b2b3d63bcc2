"""Which program wrote an ONNX file, as far as the file tells."""

import re

from onnx import ModelProto

from dfkd_core.inspection.reexport import DYNAMO

LEGACY = "pytorch-legacy"
KNOWN = {"pytorch", "tf2onnx", "keras2onnx", "skl2onnx", "paddle", "onnxsim", "onnx.quantize", "dfkd"}
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,31}")


def exporter_of(model: ModelProto) -> tuple[str | None, str | None]:
    """Name and version of a known one: what else a file says of itself is not repeated.

    PyTorch's two exporters sign alike; only the newer one describes its nodes.
    """
    name = model.producer_name if model.producer_name in KNOWN else None
    version = model.producer_version if name and _VERSION.fullmatch(model.producer_version) else None
    if name != "pytorch":
        return name, version
    described = any(entry.key.startswith("pkg.torch.") for node in model.graph.node for entry in node.metadata_props)
    newer = described or any(node.name.startswith("node_") for node in model.graph.node)
    return (DYNAMO if newer else LEGACY), version
