"""Rules of operators with weights or windows: convolutions, matrix products, pooling, normalisation, reductions."""

import math
from typing import Any

from dfkd_core.onnx_import.ir.node import Call, Rule, Unsupported, broadcast, check_size, normalize_axis
from dfkd_core.onnx_import.ir.plan import Shape

REDUCTIONS = [
    f"Reduce{how}" for how in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
]


def _window(call: Call, kernel: tuple[int, ...]) -> tuple[dict[str, Any], Shape]:
    """Return the attributes of a sliding window (padding as (before, after) pairs), and the spatial sizes of the
    result.
    """
    sizes, rank = call.shape()[2:], len(kernel)
    if call.rank != rank + 2:
        raise Unsupported(f"a window of {rank} dimensions over shape {call.shape()}")
    strides = tuple(call.attributes.get("strides", (1,) * rank))
    dilations = tuple(call.attributes.get("dilations", (1,) * rank))
    if len(strides) != rank or len(dilations) != rank or min(*strides, *dilations, *kernel) < 1:
        raise Unsupported("strides, dilations or kernel are not positive")
    spans = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
    pads = _padding(call, sizes, spans, strides)
    rounding = math.ceil if call.attributes.get("ceil_mode") else math.floor
    out = []
    for size, span, stride, (before, after) in zip(sizes, spans, strides, pads, strict=True):
        count = rounding((size + before + after - span) / stride) + 1
        if call.attributes.get("ceil_mode") and (count - 1) * stride >= size + before:
            count -= 1  # otherwise the last window would begin in the padding
        out.append(count)
    if min(out) < 1:
        raise Unsupported(f"a window of {spans} does not fit into {sizes}")
    settled = {"kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    return settled, tuple(out)


def _padding(call: Call, sizes: Shape, spans: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    auto = call.attributes.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = tuple(call.attributes.get("pads", (0,) * 2 * len(sizes)))
        if len(pads) != 2 * len(sizes) or min(pads) < 0:
            raise Unsupported("its padding is negative or incomplete")
        return tuple(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    if auto == "VALID":
        return ((0, 0),) * len(sizes)
    both = []
    for size, span, stride in zip(sizes, spans, strides, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + span - size)
        less, more = total // 2, total - total // 2
        both.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return tuple(both)


def _require_constants(call: Call, *indices: int) -> None:
    """Check that the inputs at `indices`, if present, are constants.

    Raises:
        Unsupported: one of them is computed from the images.
    """
    if any(call.has_input(index) and call.const_values[index] is None for index in indices):
        raise Unsupported("its weights depend on the images")


def _conv(call: Call) -> list[Shape]:
    _require_constants(call, 1, 2)
    weight, group = call.shape(1), int(call.attributes.get("group", 1))
    if len(weight) not in (3, 4):
        raise Unsupported(f"a kernel of {len(weight) - 2} dimensions")
    if group < 1 or call.shape()[1] != weight[1] * group or weight[0] % group:
        raise Unsupported(f"{call.shape()[1]} channels for a kernel of shape {weight} in {group} groups")
    settled, out = _window(call, weight[2:])
    call.attributes = {**settled, "group": group}
    shape = (call.shape()[0], weight[0], *out)
    check_size(shape)
    return [shape]


def _conv_transpose(call: Call) -> list[Shape]:
    _require_constants(call, 1, 2)
    weight, group = call.shape(1), int(call.attributes.get("group", 1))
    attributes = call.attributes
    if len(weight) != 4 or group < 1 or call.shape()[1] != weight[0] or weight[0] % group:
        raise Unsupported(f"{call.shape()[1]} channels for a transposed kernel of shape {weight} in {group} groups")
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "") or attributes.get("output_shape"):
        raise Unsupported("its padding follows from the size of its result")
    kernel, strides = weight[2:], tuple(attributes.get("strides", (1, 1)))
    dilations, extra = tuple(attributes.get("dilations", (1, 1))), tuple(attributes.get("output_padding", (0, 0)))
    pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
    if min(*strides, *dilations, *kernel) < 1 or min(*pads, *extra) < 0 or len(pads) != 4:
        raise Unsupported("strides, dilations, kernel or padding are not positive")
    both = ((pads[0], pads[2]), (pads[1], pads[3]))
    out = tuple(
        (size - 1) * stride + (span - 1) * dilation + 1 + more - sum(pad)
        for size, stride, span, dilation, more, pad in zip(
            call.shape()[2:], strides, kernel, dilations, extra, both, strict=True
        )
    )
    settled = {"kernel": kernel, "strides": strides, "dilations": dilations, "pads": both, "extra": extra}
    call.attributes = {**settled, "group": group}
    shape = (call.shape()[0], weight[1] * group, *out)
    if min(out) < 1:
        raise Unsupported(f"its result would have shape {shape}")
    check_size(shape)
    return [shape]


def _pool(call: Call) -> list[Shape]:
    if call.num_outputs > 1:
        raise Unsupported("its indices are used")
    attributes = call.attributes
    settled, out = _window(call, tuple(attributes["kernel_shape"]))
    settled["ceil_mode"] = bool(attributes.get("ceil_mode", 0))
    if call.op == "AveragePool":
        if set(settled["dilations"]) != {1}:
            raise Unsupported("its window is dilated")
        settled["count_include_pad"] = bool(attributes.get("count_include_pad", 0))
    if len(out) > (3 if call.op == "AveragePool" else 2):
        raise Unsupported(f"a window of {len(out)} dimensions")
    call.attributes = settled
    return [(*call.shape()[:2], *out)]


def _col2im(call: Call) -> list[Shape]:
    """Return the fold of patches (N, C x kernel, places) into images (N, C, H, W); overlapping patches are added up."""
    sizes, kernel = call.ints(1, "image_shape_"), call.ints(2, "block_shape_")
    if sizes is None or kernel is None or len(sizes) != 2 or len(kernel) != 2 or call.rank != 3:
        raise Unsupported("patches of more than height and width")
    attributes = call.attributes
    strides, dilations = tuple(attributes.get("strides", (1, 1))), tuple(attributes.get("dilations", (1, 1)))
    pads = tuple(attributes.get("pads", (0,) * 4))
    if min(*strides, *dilations, *kernel, *sizes) < 1 or min(pads) < 0 or len(pads) != 4:
        raise Unsupported("strides, dilations, kernel or padding are not positive")
    both = ((pads[0], pads[2]), (pads[1], pads[3]))
    places = 1
    for size, span, dilation, stride, pad in zip(sizes, kernel, dilations, strides, both, strict=True):
        places *= (size + sum(pad) - (span - 1) * dilation - 1) // stride + 1
    batch, channels, columns = call.shape()
    if columns != places or channels % math.prod(kernel):
        raise Unsupported(f"patches of shape {call.shape()} do not fill images of {sizes}")
    call.attributes = {"sizes": sizes, "kernel": kernel, "dilations": dilations, "strides": strides, "pads": both}
    call.keep_inputs(1)
    shape = (batch, channels // math.prod(kernel), *sizes)
    check_size((*shape[:2], *(size + sum(pad) for size, pad in zip(sizes, both, strict=True))))
    return [shape]


def _global_pool(call: Call) -> list[Shape]:
    call.op = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}[call.op]
    call.attributes = {"axes": tuple(range(2, call.rank)), "keepdims": True}
    return [(*call.shape()[:2], *(1,) * (call.rank - 2))]


def _gemm(call: Call) -> list[Shape]:
    first, second = call.shape(0), call.shape(1)
    if len(first) != 2 or len(second) != 2:
        raise Unsupported("its factors are not matrices")
    attributes = call.attributes
    trans_a, trans_b = bool(attributes.get("transA", 0)), bool(attributes.get("transB", 0))
    call.attributes = {
        "flip_a": trans_a,
        "flip_b": trans_b,
        "alpha": float(attributes.get("alpha", 1.0)),
        "beta": float(attributes.get("beta", 1.0)),
    }
    first, second = first[::-1] if trans_a else first, second[::-1] if trans_b else second
    if first[1] != second[0]:
        raise Unsupported(f"cannot multiply {first} by {second}")
    shape = (first[0], second[1])
    if call.has_input(2) and broadcast(call.shape(2), shape) != shape:
        raise Unsupported(f"an offset of shape {call.shape(2)} for {shape}")
    return [shape]


def _matmul(call: Call) -> list[Shape]:
    first, second = call.shape(0), call.shape(1)
    if not first or not second:
        raise Unsupported("a factor is a single number")
    rows, columns = first[-2:-1], second[-1:] if len(second) > 1 else ()
    if first[-1] != second[-2 if len(second) > 1 else -1]:
        raise Unsupported(f"cannot multiply {first} by {second}")
    shape = (*broadcast(first[:-2], second[:-2]), *rows, *columns)
    check_size(shape)
    return [shape]


def _batchnorm(call: Call) -> list[Shape]:
    """BatchNormalization; on constants, which standardise weights, it may be in training mode."""
    _require_constants(call, 1, 2, 3, 4)
    channels, attributes = call.shape()[1], call.attributes
    if any(call.shape(index) != (channels,) for index in range(1, 5)):
        raise Unsupported("its statistics do not fit the channels")
    training = bool(attributes.get("training_mode", 0))
    call.attributes = {"epsilon": float(attributes.get("epsilon", 1e-5))}
    if call.const_values[0] is not None:
        call.attributes |= {"training": training, "momentum": float(attributes.get("momentum", 0.9))}
        return [call.shape(), (channels,), (channels,)]
    if training or attributes.get("spatial", 1) != 1:
        raise Unsupported("it is in training mode")
    variance = call.const_values[4]
    if variance is not None and float(variance.min()) < -call.attributes["epsilon"]:
        raise Unsupported("a running variance of it is negative, so its output is no number")
    return [call.shape()]


def _instance_norm(call: Call) -> list[Shape]:
    _require_constants(call, 1, 2)
    if call.rank < 3:
        raise Unsupported("its input has no spatial dimensions")
    call.attributes = {"epsilon": float(call.attributes.get("epsilon", 1e-5))}
    return [call.shape()]


def _layer_norm(call: Call) -> list[Shape]:
    if call.num_outputs > 1:
        raise Unsupported("its mean or deviation is used")
    _require_constants(call, 1, 2)
    axis = call.axis(-1)
    call.attributes = {"axis": axis, "epsilon": float(call.attributes.get("epsilon", 1e-5))}
    return [call.shape()]


def _group_norm(call: Call) -> list[Shape]:
    _require_constants(call, 1, 2)
    groups, channels = int(call.attributes["num_groups"]), call.shape()[1]
    if groups < 1 or channels % groups or call.shape(1) != (groups if call.opset < 21 else channels,):
        raise Unsupported("its scale does not fit the channels")
    call.attributes = {"groups": groups, "channels": channels, "epsilon": float(call.attributes.get("epsilon", 1e-5))}
    return [call.shape()]


def _lrn(call: Call) -> list[Shape]:
    attributes = call.attributes
    defaults = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    call.attributes = {name: float(attributes.get(name, value)) for name, value in defaults.items()}
    call.attributes["size"] = int(attributes["size"])
    return [call.shape()]


def _lp_norm(call: Call) -> list[Shape]:
    if int(call.attributes.get("p", 2)) not in (1, 2):
        raise Unsupported("a norm other than L1 and L2")
    call.attributes = {"axis": call.axis(-1), "p": int(call.attributes.get("p", 2))}
    return [call.shape()]


def _reduce(call: Call) -> list[Shape]:
    axes = call.ints(1, "axes")
    keep = bool(call.attributes.get("keepdims", 1))
    if not axes and call.attributes.get("noop_with_empty_axes", 0):
        call.op, call.attributes = "Identity", {}
        call.keep_inputs(1)
        return [call.shape()]
    chosen = tuple(sorted({normalize_axis(axis, call.rank) for axis in axes})) if axes else tuple(range(call.rank))
    call.attributes = {"axes": chosen, "keepdims": keep}
    call.keep_inputs(1)
    sizes = enumerate(call.shape())
    return [tuple(1 if axis in chosen else size for axis, size in sizes if keep or axis not in chosen)]


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Col2Im": _col2im,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batchnorm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "LRN": _lrn,
    "LpNormalization": _lp_norm,
    **dict.fromkeys(REDUCTIONS, _reduce),
}
