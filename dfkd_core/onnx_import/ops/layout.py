"""Rules of the operators that move, cut and repeat values, and of those that occur only in arithmetic on shapes."""

import math

import numpy as np

from dfkd_core.onnx_import.ir.node import Call, Rule, Unsupported, broadcast, check_size, normalize_axis
from dfkd_core.onnx_import.ir.plan import Shape


def reshaped(shape: Shape, target: tuple[int, ...], *, allow_zero: bool) -> Shape:
    """Return the output shape of a Reshape to `target`.

    Raises:
        Unsupported: the target has another number of elements.
    """
    if not allow_zero:
        target = tuple(shape[at] if size == 0 and at < len(shape) else size for at, size in enumerate(target))
    total, known = math.prod(shape), math.prod(size for size in target if size != -1)
    if target.count(-1) == 1 and known and total % known == 0:
        target = tuple(total // known if size == -1 else size for size in target)
    if math.prod(target) != total or any(size < 0 for size in target):
        raise Unsupported(f"cannot reshape {shape} to {target}")
    return target


def _reshape(call: Call) -> list[Shape]:
    target = call.ints(1, "shape")
    if target is None:
        raise Unsupported("no shape given")
    shape = reshaped(call.shape(), target, allow_zero=bool(call.attributes.get("allowzero", 0)))
    call.attributes = {"shape": shape}
    call.keep_inputs(1)
    return [shape]


def _flatten(call: Call) -> list[Shape]:
    shape, rank = call.shape(), call.rank
    axis = int(call.attributes.get("axis", 1))
    axis += rank if axis < 0 else 0
    flat = (math.prod(shape[:axis]), math.prod(shape[axis:]))
    call.op, call.attributes = "Reshape", {"shape": flat}
    return [flat]


def _squeeze(call: Call) -> list[Shape]:
    axes = call.ints(1, "axes")
    shape = call.shape()
    chosen = (
        {normalize_axis(axis, call.rank) for axis in axes}
        if axes is not None
        else {i for i, s in enumerate(shape) if s == 1}
    )
    if any(shape[axis] != 1 for axis in chosen):
        raise Unsupported(f"cannot squeeze axes {sorted(chosen)} of {shape}")
    call.attributes = {"axes": tuple(sorted(chosen))}
    call.keep_inputs(1)
    return [tuple(size for axis, size in enumerate(shape) if axis not in chosen)]


def _unsqueeze(call: Call) -> list[Shape]:
    axes = call.ints(1, "axes") or ()
    rank = call.rank + len(axes)
    chosen = sorted(normalize_axis(axis, rank) for axis in axes)
    if len(set(chosen)) != len(axes):
        raise Unsupported("an axis that comes twice")
    rest = iter(call.shape())
    call.attributes = {"axes": tuple(chosen)}
    call.keep_inputs(1)
    return [tuple(1 if axis in chosen else next(rest) for axis in range(rank))]


def _transpose(call: Call) -> list[Shape]:
    order = tuple(call.attributes.get("perm", range(call.rank)[::-1]))
    if sorted(order) != list(range(call.rank)):
        raise Unsupported(f"cannot permute {call.rank} axes by {order}")
    call.attributes = {"perm": order}
    return [tuple(call.shape()[axis] for axis in order)]


def _concat(call: Call) -> list[Shape]:
    axis = call.axis(0)
    shapes = [call.shape(index) for index in range(len(call.shapes))]
    rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(rest) != 1:
        raise Unsupported(f"cannot join shapes {', '.join(map(str, shapes))} along axis {axis}")
    call.attributes = {"axis": axis}
    joined = list(shapes[0])
    joined[axis] = sum(shape[axis] for shape in shapes)
    return [tuple(joined)]


def _split(call: Call) -> list[Shape]:
    axis, shape = call.axis(0), call.shape()
    sizes = call.ints(1, "split")
    if sizes is None:
        chunk = -(-shape[axis] // call.num_outputs)
        sizes = tuple(max(0, min(chunk, shape[axis] - chunk * index)) for index in range(call.num_outputs))
    if sum(sizes) != shape[axis] or len(sizes) != call.num_outputs or min(sizes) < 0:
        raise Unsupported(f"cannot split {shape} into {sizes} along axis {axis}")
    call.attributes = {"axis": axis, "sizes": sizes}
    call.keep_inputs(1)
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def _slice(call: Call) -> list[Shape]:
    shape = list(call.shape())
    starts, ends = call.ints(1, "starts"), call.ints(2, "ends")
    if starts is None or ends is None:
        raise Unsupported("no starts or ends given")
    axes = call.ints(3, "axes") or tuple(range(len(starts)))
    steps = call.ints(4, "steps") or (1,) * len(starts)
    cuts = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = normalize_axis(axis, call.rank)
        if step == 0:
            raise Unsupported("a step of 0")
        index = range(*slice(start, end, step).indices(shape[place]))
        shape[place] = len(index)
        cuts.append((place, index.start, index.stop, step))
    call.attributes = {"cuts": tuple(cuts)}  # (axis, start, stop, step); stop is -1 for a backward cut to index 0
    call.keep_inputs(1)
    return [tuple(shape)]


def _gather(call: Call) -> list[Shape]:
    axis, indices = call.axis(0), call.const_value(1)
    size = call.shape()[axis]
    places = indices.astype(np.int64)
    if places.size and not (-size <= int(places.min()) and int(places.max()) < size):
        raise Unsupported(f"an index outside of {size}")
    call.attributes = {"axis": axis, "indices": np.where(places < 0, places + size, places).tolist()}
    call.keep_inputs(1)
    return [(*call.shape()[:axis], *indices.shape, *call.shape()[axis + 1 :])]


def _gather_nd(call: Call) -> list[Shape]:
    """Indices into several axes become indices into one axis, which joins those axes."""
    indices = call.const_value(1).astype(np.int64)
    count = indices.shape[-1] if indices.ndim else 0
    if call.attributes.get("batch_dims", 0) or not 1 <= count <= call.rank:
        raise Unsupported("its indices do not fit the shape")
    sizes = np.array(call.shape()[:count], np.int64)
    places = np.where(indices < 0, indices + sizes, indices)
    if np.any(places < 0) or np.any(places >= sizes):
        raise Unsupported(f"an index outside of {tuple(sizes.tolist())}")
    flat = np.ravel_multi_index(np.moveaxis(places, -1, 0), call.shape()[:count])
    call.attributes = {"axes": count, "indices": np.asarray(flat).tolist()}
    call.keep_inputs(1)
    shape = (*indices.shape[:-1], *call.shape()[count:])
    check_size(shape)
    return [shape]


def _expand(call: Call) -> list[Shape]:
    shape = broadcast(call.shape(), call.ints(1, "shape") or ())
    check_size(shape)
    call.attributes = {"shape": shape}
    call.keep_inputs(1)
    return [shape]


def _tile(call: Call) -> list[Shape]:
    repeats = call.ints(1, "repeats") or ()
    if len(repeats) != call.rank or min(repeats, default=1) < 0:
        raise Unsupported("repeats do not fit the shape")
    shape = tuple(size * times for size, times in zip(call.shape(), repeats, strict=True))
    check_size(shape)
    call.attributes = {"repeats": repeats}
    call.keep_inputs(1)
    return [shape]


def _pad(call: Call) -> list[Shape]:
    mode = call.attributes.get("mode", "constant")
    pads = call.ints(1, "pads") or ()
    value = call.number(2, "value", 0.0)
    axes = call.ints(3, "axes_") if call.has_input(3) else tuple(range(call.rank))
    if mode not in ("constant", "reflect", "edge") or axes is None or len(pads) != 2 * len(axes):
        raise Unsupported(f"padding of mode {mode}")
    both = [(0, 0)] * call.rank
    for at, axis in enumerate(axes):
        both[normalize_axis(axis, call.rank)] = (pads[at], pads[at + len(axes)])
    call.attributes = {"mode": mode, "pads": tuple(both), "value": value}
    call.keep_inputs(1)
    shape = tuple(before + size + after for size, (before, after) in zip(call.shape(), both, strict=True))
    check_size(shape)
    return [shape]


def _depth_to_space(call: Call) -> list[Shape]:
    block, mode = int(call.attributes["blocksize"]), call.attributes.get("mode", "DCR")
    batch, channels, height, width = call.shape()
    if mode not in ("DCR", "CRD") or block < 1 or channels % block**2:
        raise Unsupported(f"blocks of {block} in mode {mode}")
    call.attributes = {"blocksize": block, "mode": mode}
    return [(batch, channels // block**2, height * block, width * block)]


def _space_to_depth(call: Call) -> list[Shape]:
    block = int(call.attributes["blocksize"])
    batch, channels, height, width = call.shape()
    if block < 1 or height % block or width % block:
        raise Unsupported(f"blocks of {block}")
    call.attributes = {"blocksize": block}
    return [(batch, channels * block**2, height // block, width // block)]


def _shape_of(call: Call) -> list[Shape]:
    size = call.rank
    start, end = int(call.attributes.get("start", 0)), int(call.attributes.get("end", size))
    call.attributes = {"start": start, "end": end}
    return [(len(range(size)[start:end]),)]


def _constant_of_shape(call: Call) -> list[Shape]:
    shape = call.ints(0, "shape_") or ()
    check_size(shape)
    value = call.attributes.get("value", np.zeros(1, np.float32))
    call.op, call.attributes = "Expand", {"shape": shape}
    call.shapes, call.const_values = [(1,)], [np.asarray(value).reshape(1)]
    return [shape]


def _range(call: Call) -> list[Shape]:
    start, stop, step = (call.const_value(index).item() for index in range(3))
    if not step:
        raise Unsupported("a step of 0")
    count = max(0, math.ceil((stop - start) / step))
    check_size((count,))
    return [(count,)]


def _cumulative_sum(call: Call) -> list[Shape]:
    axis = normalize_axis(int(call.number(1, "axis_", 0)), call.rank)
    call.attributes = {"axis": axis} | {key: bool(call.attributes.get(key, 0)) for key in ("exclusive", "reverse")}
    call.keep_inputs(1)
    return [call.shape()]


def _trilu(call: Call) -> list[Shape]:
    call.attributes = {"upper": int(call.attributes.get("upper", 1)), "k": int(call.number(1, "k_", 0))}
    call.keep_inputs(1)
    return [call.shape()]


RULES: dict[str, Rule] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Shape": _shape_of,
    "Size": lambda call: [()],
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Trilu": _trilu,
    "CumSum": _cumulative_sum,
}
SHAPES_ONLY = {"Shape", "Size", "Range"}  # these operators never compute on images
