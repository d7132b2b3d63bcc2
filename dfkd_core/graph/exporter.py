"""Which program wrote an ONNX file, as far as the file tells."""

from onnx import ModelProto

from dfkd_core.graph.model import readable

DYNAMO, LEGACY = "pytorch-dynamo", "pytorch-legacy"


def exporter_of(model: ModelProto) -> tuple[str | None, str | None]:
    """Name and version. PyTorch's two exporters sign alike; only the newer one describes its nodes."""
    name, version = (readable(text) if text else None for text in (model.producer_name, model.producer_version))
    if name != "pytorch":
        return name, version
    described = any(entry.key.startswith("pkg.torch.") for node in model.graph.node for entry in node.metadata_props)
    newer = described or any(node.name.startswith("node_") for node in model.graph.node)
    return (DYNAMO if newer else LEGACY), version
