"""Rules of the operators of transformers: Einsum, Attention and RMSNormalization."""

import math

from dfkd_core.onnx_import.ir.node import Call, Rule, Unsupported, broadcast, check_size
from dfkd_core.onnx_import.ir.plan import Shape

MAX_EQUATION = 128
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def terms_of(equation: str, shapes: list[Shape]) -> tuple[list[str], str]:
    """Return the axis letters of each operand and of the result; unused letters replace an ellipsis.

    Raises:
        Unsupported: the equation does not fit the operands.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes) or len(equation) > MAX_EQUATION:
        raise Unsupported("its equation does not fit its operands")
    spare = "".join(letter for letter in LETTERS if letter not in equation)
    hidden = [len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True)]
    named = spare[: max(hidden)]
    filled = [
        term.replace("...", named[len(named) - count :]) if count > 0 else term.replace("...", "")
        for term, count in zip(terms, hidden, strict=True)
    ]
    if not arrow:
        letters = "".join(filled)
        right = named + "".join(sorted(x for x in set(letters) - set(named) if letters.count(x) == 1))
    return filled, right.replace("...", named)


def sizes_of(terms: list[str], shapes: list[Shape]) -> dict[str, int]:
    """Return the size of the axis that each letter names.

    Raises:
        Unsupported: one letter has two sizes, or the equation does not fit the operands.
    """
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        if len(term) != len(shape) or not set(term) <= set(LETTERS):
            raise Unsupported("its equation does not fit its operands")
        for letter, size in zip(term, shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise Unsupported(f"axis {letter} has the sizes {sizes[letter]} and {size}")
    return sizes


def _einsum(call: Call) -> list[Shape]:
    if len(call.shapes) > 2:
        raise Unsupported("more than two operands")
    shapes = [call.shape(index) for index in range(len(call.shapes))]
    terms, result = terms_of(str(call.attributes["equation"]), shapes)
    sizes = sizes_of(terms, shapes)
    if len(set(result)) != len(result) or not set(result) <= sizes.keys():
        raise Unsupported("its result has axes that no operand has")
    call.attributes = {"equation": f"{','.join(terms)}->{result}"}
    shape = tuple(sizes[letter] for letter in result)
    check_size(shape)
    return [shape]


def _attention(call: Call) -> list[Shape]:
    if call.num_outputs > 1 or call.has_input(4) or call.has_input(5) or call.has_input(6):
        raise Unsupported("it keeps keys and values of earlier calls")
    attributes = call.attributes
    folded = call.rank == 3  # the operands are (N, length, heads x size)
    heads, shared = (
        int(attributes.get(f"{which}_num_heads", 0)) if folded else call.shape(at)[1]
        for at, which in enumerate(("q", "kv"))
    )
    query, key, value = _apart(call.shape(0), heads), _apart(call.shape(1), shared), _apart(call.shape(2), shared)
    if query[3] != key[3] or key[1:3] != value[1:3] or query[0] != key[0] or heads % shared:
        raise Unsupported(f"queries {query}, keys {key} and values {value} do not fit together")
    scores = (query[0], heads, query[2], key[2])
    check_size(scores)
    if call.has_input(3) and broadcast(call.shape(3), scores) != scores:
        raise Unsupported("its mask does not fit the scores")
    call.attributes = {
        "heads": (heads, shared),
        "folded": folded,
        "causal": bool(attributes.get("is_causal", 0)),
        "scale": float(attributes.get("scale", 1 / math.sqrt(query[3]))),
        "softcap": float(attributes.get("softcap", 0.0)),
    }
    if folded:
        return [(query[0], query[2], heads * value[3])]
    return [(query[0], heads, query[2], value[3])]


def _apart(shape: Shape, heads: int) -> Shape:
    """Return the shape (N, heads, length, size) of an operand (N, length, heads x size) or (N, heads, length, size)."""
    if len(shape) == 4:
        return shape
    if len(shape) != 3 or heads < 1 or shape[2] % heads:
        raise Unsupported(f"{heads} heads in shape {shape}")
    return shape[0], heads, shape[1], shape[2] // heads


def _rms_norm(call: Call) -> list[Shape]:
    if call.has_input(1) and call.const_values[1] is None:
        raise Unsupported("its weights depend on the images")
    axis = call.axis(-1)
    if broadcast(call.shape(1), call.shape()[axis:]) != call.shape()[axis:]:
        raise Unsupported("its scale does not fit")
    call.attributes = {"axis": axis, "epsilon": float(call.attributes.get("epsilon", 1e-5))}
    return [call.shape()]


RULES: dict[str, Rule] = {"Einsum": _einsum, "Attention": _attention, "RMSNormalization": _rms_norm}
