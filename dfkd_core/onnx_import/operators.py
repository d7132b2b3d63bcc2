"""The operators that the importer takes, with their rules, and the refusal of a graph that has others."""

from collections.abc import Collection, Sequence

from onnx import ModelProto, NodeProto, defs

from dfkd_core.errors import OperatorUnsupported
from dfkd_core.onnx_import.advice import EXPORT_HINT, operators_hint, refused_nodes
from dfkd_core.onnx_import.ir.node import Rule
from dfkd_core.onnx_import.ir.parse import opset_of, readable
from dfkd_core.onnx_import.ops import attention, elementwise, layers, layout, resize
from dfkd_core.onnx_import.ops.reference_folding import ON_CONSTANTS

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **layout.RULES,
    **layers.RULES,
    **resize.RULES,
    **attention.RULES,
}
SEQUENCES = ("SplitToSequence", "SequenceAt")
ACCEPTED = {*RULES, *SEQUENCES, "Constant"}


def refusal(lines: Sequence[str], hint: str = EXPORT_HINT) -> OperatorUnsupported:
    """Return the refusal of the nodes that `lines` describe."""
    return OperatorUnsupported(refused_nodes(lines), nodes=list(lines[:100]), hint=hint)


def check_operators(model: ModelProto, *, removed: Collection[str] = ()) -> None:
    """Check that every operator is on the list; some are taken only where all their inputs are constants.

    `removed` names operators that a later step of the import takes out of the graph.

    Raises:
        OperatorUnsupported: some are not, or have a number of inputs or outputs that the operator does not allow; the
            error lists all of them.
    """
    constant = _independent(model)
    unknown = [node for node in model.graph.node if node.op_type not in removed and not _accepted(node, constant)]
    if unknown:
        raise refusal(
            [f"{readable(node.name)}: {readable(node.op_type)} — not on the list" for node in unknown],
            operators_hint(model, unknown),
        )
    wrong = [line for node in model.graph.node if (line := _wrong_count(node, opset_of(model))) is not None]
    if wrong:
        raise refusal(wrong)


def _wrong_count(node: NodeProto, opset: int) -> str | None:
    """Return the line about a node that has more or fewer inputs or outputs than its operator, else None."""
    try:
        schema = defs.get_schema(node.op_type, opset)
    except defs.SchemaError:  # the operator is newer than the set that the file declares
        return None
    counts = (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    )
    for what, found, least, most in counts:
        if not least <= found <= most:
            return f"{readable(node.name)}: {node.op_type} — it cannot have {found} {what}"
    missing = [index for index, name in enumerate(node.input[: schema.min_input]) if not name]
    return f"{readable(node.name)}: {node.op_type} — input {missing[0]} is missing" if missing else None


def _accepted(node: NodeProto, constant: set[str]) -> bool:
    return node.op_type in ACCEPTED or (node.op_type in ON_CONSTANTS and all(name in constant for name in node.input))


def _independent(model: ModelProto) -> set[str]:
    """Return the names of the values that do not depend on the images' values, and of omitted inputs."""
    names = {"", *(tensor.name for tensor in model.graph.initializer)}
    for node in model.graph.node:
        if node.op_type in ("Shape", "Size") or all(name in names for name in node.input):
            names.update(node.output)
    return names
