"""What the user of each exporter can do where a file cannot be taken: the hints of the importer's refusals."""

from collections.abc import Iterable, Sequence

from onnx import ModelProto, NodeProto, defs

from dfkd_core.onnx_import.producer import DYNAMO, LEGACY, exporter_of

QUANTISED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"}
QUANTISED |= {"ConvInteger", "MatMulInteger"}
QUANTISED_HINT = "A quantised network has no useful gradient: give the float model that it was quantised from."
EXPORT_HINT = (
    "Only the operators of image classifiers are read. Leave pre- and post-processing (casts, resizing, argmax, top-k) "
    "out of the export."
)
ORDINARY = (
    "skl2onnx.to_onnx(model, X[:1], options={'zipmap': False}, black_op={'LinearClassifier', 'Scaler', 'Normalizer'})"
)
KERAS_ON_TORCH = (
    "A network of Keras can be exported with PyTorch behind it instead: KERAS_BACKEND=torch, then "
    "model.export('teacher.onnx', format='onnx')."
)
_LEARN = {  # operator of ai.onnx.ml → why it cannot be written otherwise
    "TreeEnsembleClassifier": "Decision trees have no gradient, so they cannot teach; networks and linear models can.",
    "TreeEnsembleRegressor": "Decision trees have no gradient, so they cannot teach; networks and linear models can.",
    "SVMClassifier": "Support vector machines with kernels are not read; networks and linear models are.",
}
RECURRENT = {"GRU", "LSTM", "RNN"}
RECOMMENDED, NEWEST_OF_MATLAB = 18, 14  # operator sets
_OPSETS = {
    DYNAMO: "opset_version=18 in torch.onnx.export",
    LEGACY: "opset_version=18 in torch.onnx.export",
    "tf2onnx": "--opset 18 for tf2onnx.convert",
    "skl2onnx": "target_opset=18 in skl2onnx.to_onnx",
    "paddle2onnx": "--opset_version 18 for paddle2onnx",
    "matlab": "'OpsetVersion', 14 in exportONNXNetwork",
}
_INFERENCE = {
    DYNAMO: "Export in eval mode: call model.eval() first.",
    LEGACY: "Export in eval mode: call model.eval() and use training=torch.onnx.TrainingMode.PRESERVE or EVAL.",
    "paddle2onnx": "Export in eval mode: call model.eval() before paddle.onnx.export or paddle.jit.save.",
}


def inference_hint(exporter: str | None) -> str:
    """Return how to export a network for inference, of a file in training mode."""
    return _INFERENCE.get(exporter or "", "Export the network for inference, not for training.")


def inputs_hint(exporter: str | None) -> str:
    """Return the hint for a graph that does not have exactly one input."""
    hint = "A teacher takes one batch of images."
    if exporter == "tf2onnx":
        hint += (
            " Inputs named after a layer are its constants, whose values Keras's export has lost, for example those of "
            "Normalization: tf2onnx.convert.from_keras(model, output_path='teacher.onnx') keeps them. "
            f"{KERAS_ON_TORCH}"
        )
    return hint


def opset_hint(exporter: str | None) -> str:
    """Return how to export with an operator set that is read."""
    return f"Export the network again with {_OPSETS.get(exporter or '', 'operator set 18')}."


def parity_hint(exporter: str | None, *, opset: int, fixed: bool) -> str:
    """Return what may help where ONNX Runtime computes other logits than we do; `fixed`: the file is for one batch."""
    found = []
    if opset < (NEWEST_OF_MATLAB if exporter == "matlab" else RECOMMENDED):
        found.append(opset_hint(exporter))
    if fixed:
        found.append("Export it for any number of images.")
    found.append("Where that changes nothing, our reading is at fault: please report it with the file.")
    return " ".join(found) if len(found) > 1 else "Our reading is at fault: please report it with the file."


def one_file_hint(exporter: str | None) -> str:
    """Return how to get one file of an ONNX model in several."""
    hint = (
        "`dfkd submit` puts both files into one before it sends them. By hand, where both lie: "
        "python -c \"import onnx; onnx.save(onnx.load('model.onnx'), 'teacher.onnx')\"."
    )
    written_by_torch = exporter in (DYNAMO, LEGACY)
    return f"{hint} Or export one file: torch.onnx.export(…, external_data=False)." if written_by_torch else hint


def refused_nodes(lines: Sequence[str]) -> str:
    """Return what is said of nodes that cannot be taken; each line describes one of them."""
    counted = "1 node" if len(lines) == 1 else f"{len(lines)} nodes"
    return f"{counted} of the ONNX graph cannot be taken: {'; '.join(lines[:5])}"


def operators_hint(model: ModelProto, refused: Iterable[NodeProto]) -> str:
    """Return what to do about nodes of a kind that the importer does not take."""
    nodes = list(refused)
    if any(node.op_type in QUANTISED or node.op_type.startswith(("QLinear", "QGemm", "QAttention")) for node in nodes):
        return QUANTISED_HINT
    exporter, _ = exporter_of(model)
    domains = {node.domain for node in nodes}
    if "ai.onnx.ml" in domains:
        never = [_LEARN[node.op_type] for node in nodes if node.op_type in _LEARN]
        return never[0] if never else f"Write it with ordinary operators: {ORDINARY}; then name the output of arrays."
    if "com.microsoft" in domains:
        return "ONNX Runtime has optimised this file: give the file from which it was made."
    if any(attribute.HasField("g") or attribute.graphs for node in nodes for attribute in node.attribute):
        return _control_flow_hint(exporter)
    return _kind_hint(nodes, exporter)


def _kind_hint(nodes: Sequence[NodeProto], exporter: str | None) -> str:
    if any(node.op_type in RECURRENT for node in nodes):
        return "Recurrent layers are not read: teachers are networks of convolutions, attention and linear layers."
    if exporter == "tf2onnx" and not all(defs.has(node.op_type) for node in nodes):
        return f"tf2onnx left operators of TensorFlow in the file, which ONNX does not have. {KERAS_ON_TORCH}"
    if any(node.domain not in ("", "ai.onnx") for node in nodes):
        return "Operators of other domains than ONNX's own are not read: export the network with standard ones."
    return EXPORT_HINT


def _control_flow_hint(exporter: str | None) -> str:
    if exporter == LEGACY:
        return "Loops and branches are not read. PyTorch's newer exporter often writes none: dynamo=True."
    if exporter == "tf2onnx":
        return f"Loops, which tf2onnx writes for recurrent layers, and branches are not read. {KERAS_ON_TORCH}"
    return "Loops and branches are not read: export the network without them."
