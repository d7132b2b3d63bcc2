"""Rules of the elementwise operators, which read one value or broadcast several: default attributes and shapes."""

from typing import Any

from dfkd_core.onnx_import.ir.node import Call, Rule, Unsupported, broadcast
from dfkd_core.onnx_import.ir.plan import Shape

FLOAT, BOOL, FLOAT16, DOUBLE, BFLOAT16 = 1, 9, 10, 11, 16

UNARY: dict[str, dict[str, Any]] = {
    "Identity": {},
    "Relu": {},
    "LeakyRelu": {"alpha": 0.01},
    "ThresholdedRelu": {"alpha": 1.0},
    "Elu": {"alpha": 1.0},
    "Celu": {"alpha": 1.0},
    "Selu": {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    "Sigmoid": {},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "HardSwish": {},
    "Tanh": {},
    "Softplus": {},
    "Softsign": {},
    "Mish": {},
    "Swish": {"alpha": 1.0},
    "Shrink": {"lambd": 0.5, "bias": 0.0},
    "Gelu": {"approximate": "none"},
    "Erf": {},
    "Exp": {},
    "Log": {},
    "Sqrt": {},
    "Reciprocal": {},
    "Abs": {},
    "Neg": {},
    "Sin": {},
    "Cos": {},
    "Tan": {},
    "Asin": {},
    "Acos": {},
    "Atan": {},
    "Sinh": {},
    "Cosh": {},
    "Asinh": {},
    "Acosh": {},
    "Atanh": {},
    "Not": {},
    "IsNaN": {},
    "IsInf": {"detect_negative": 1, "detect_positive": 1},
    "Floor": {},
    "Ceil": {},
    "Round": {},
    "Sign": {},
}
BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "PRelu", "Mod", "And", "Or", "Xor")
COMPARISONS = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
BOOLEAN_OPS = {*COMPARISONS, "And", "Or", "Not", "IsNaN", "IsInf"}
VARIADIC = ("Max", "Min", "Sum", "Mean")
WITHOUT_GRADIENT = {"Floor", "Ceil", "Round", "Mod", "Xor"}  # these operators are accepted on constants only


def _unary(call: Call) -> list[Shape]:
    attributes, defaults = call.attributes, UNARY[call.op]
    call.attributes = {name: type(default)(attributes.get(name, default)) for name, default in defaults.items()}
    if call.attributes.get("approximate", "none") not in ("none", "tanh"):
        raise Unsupported("an approximation of this kind")
    return [call.shape()]


def _broadcast(call: Call) -> list[Shape]:
    if call.attributes.get("fmod") and call.op == "Mod":
        raise Unsupported("fmod")
    call.attributes = {}
    return [broadcast(*(call.shape(index) for index in range(len(call.shapes))))]


def _clip(call: Call) -> list[Shape]:
    infinite = float("inf")
    call.attributes = {"min": call.number(1, "min", -infinite), "max": call.number(2, "max", infinite)}
    call.keep_inputs(1)
    return [call.shape()]


def _cast(call: Call) -> list[Shape]:
    call.attributes = {"to": int(call.attributes["to"])}
    return [call.shape()]


def _cast_like(call: Call) -> list[Shape]:
    """Cast to float32, or to int64 if the second input is a constant that is not floating-point."""
    like = call.const_values[1]
    call.attributes = {"to": FLOAT if like is None or like.dtype.kind == "f" else 7}
    call.op = "Cast"
    call.keep_inputs(1)
    return [call.shape()]


def _softmax(call: Call) -> list[Shape]:
    modern = call.opset >= 13
    axis = call.axis(-1 if modern else 1)
    if not modern and any(size != 1 for size in call.shape()[axis + 1 :]):
        raise Unsupported("softmax over several axes (opset before 13)")
    call.attributes = {"axis": axis}
    return [call.shape()]


def _where(call: Call) -> list[Shape]:
    return [broadcast(call.shape(0), call.shape(1), call.shape(2))]


RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(BINARY, _broadcast),
    **dict.fromkeys(COMPARISONS, _broadcast),
    **dict.fromkeys(VARIADIC, _broadcast),
    "Clip": _clip,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Where": _where,
}
