"""Detection of the program that wrote an ONNX file."""

import re

from onnx import ModelProto

from dfkd_core.inspection.reexport import DYNAMO

LEGACY = "pytorch-legacy"
KNOWN = {"pytorch", "tf2onnx", "keras2onnx", "skl2onnx", "paddle", "onnxsim", "onnx.quantize", "dfkd"}
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,31}")


def exporter_of(model: ModelProto) -> tuple[str | None, str | None]:
    """Return the name and version of the exporter, or None if it is not one of `KNOWN`: other text is not repeated to
    users.

    Both exporters of PyTorch write the same producer name; only the newer one adds metadata to nodes.
    """
    name = model.producer_name if model.producer_name in KNOWN else None
    version = model.producer_version if name and _VERSION.fullmatch(model.producer_version) else None
    if name != "pytorch":
        return name, version
    described = any(entry.key.startswith("pkg.torch.") for node in model.graph.node for entry in node.metadata_props)
    newer = described or any(node.name.startswith("node_") for node in model.graph.node)
    return (DYNAMO if newer else LEGACY), version
