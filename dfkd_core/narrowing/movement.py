"""Rules of steps that move, cut, join or repeat values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dfkd_core.narrowing.merging import Operand, in_order, merge, operand_of, placed
from dfkd_core.narrowing.trace import Block, StepRule, Trace
from dfkd_core.narrowing.units import Ids
from dfkd_core.onnx_import.ir.plan import Scaled, Shape, Step
from dfkd_core.onnx_import.ops.layers import REDUCTIONS

FIXED_CUT = "a part of a fixed place is taken of it"


@dataclass(frozen=True, slots=True)
class Factors:
    """The common factors of two shapes of equally many entries, outermost first."""

    sizes: tuple[int, ...]
    before: tuple[int, ...]  # for each factor its axis in the first shape
    after: tuple[int, ...]  # and in the second


def factors_of(before: Shape, after: Shape) -> Factors | None:
    """Return the factors of which the axes of both shapes are made; None if an axis crosses the border of another."""
    sizes, first, second = [], [], []
    left, right = (iter([(at, size) for at, size in enumerate(shape) if size != 1]) for shape in (before, after))
    one, two = next(left, None), next(right, None)
    while one is not None and two is not None:
        (here, inner), (there, outer) = one, two
        factor = min(inner, outer)
        if factor == 0 or inner % factor or outer % factor:
            return None
        sizes.append(factor)
        first.append(here)
        second.append(there)
        one = next(left, None) if inner == factor else (here, inner // factor)
        two = next(right, None) if outer == factor else (there, outer // factor)
    return Factors(tuple(sizes), tuple(first), tuple(second)) if one is None and two is None else None


def reshape(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Split and join axes. An axis that is joined of two blocks keeps the channels of one."""
    name, shape = str(step.inputs[0]), trace.shape(step.outputs[0])
    factors = factors_of(trace.shape(name), shape)
    if factors is None:
        trace.fix_all(step, "a reshape mixes it with other axes")
        return [[]]
    found: list[Block] = []
    for block in trace.blocks(name):
        inside = [at for at, axis in enumerate(factors.before) if axis in block.axes]
        ids = block.ids.reshape([factors.sizes[at] for at in inside])
        split = trace.simplified(Block(tuple(inside), ids))
        taken = {axis for other in found for axis in other.axes}
        if split is not None and taken:
            double = [at for at in split.axes if factors.after[at] in taken]
            split = trace.collapse(split, double, "a reshape joins it with other channels")
        if split is not None:
            found.append(_joined(split, factors, shape))
    return [found]


def _joined(block: Block, factors: Factors, shape: Shape) -> Block:
    """A block over factors as a block over the axes of the second shape."""
    axes = sorted({factors.after[at] for at in block.axes})
    whole = [at for at, axis in enumerate(factors.after) if axis in axes]
    ids = block.ids.reshape([factors.sizes[at] if at in block.axes else 1 for at in whole])
    ids = np.broadcast_to(ids, [factors.sizes[at] for at in whole])
    return Block(tuple(axes), ids.reshape([shape[axis] for axis in axes]))


def transpose(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Permute the axes."""
    place = {axis: at for at, axis in enumerate(step.attributes["perm"])}
    return [_moved(trace, trace.blocks(step.inputs[0]), place)]


def _moved(trace: Trace, blocks: Sequence[Block], place: dict[int, int]) -> list[Block]:
    found = [in_order(trace, Block(tuple(place[axis] for axis in block.axes), block.ids)) for block in blocks]
    return [block for block in found if block is not None]


def squeeze(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Remove axes of size one."""
    kept = [axis for axis in range(len(trace.shape(step.inputs[0]))) if axis not in step.attributes["axes"]]
    return [_moved(trace, trace.blocks(step.inputs[0]), {axis: at for at, axis in enumerate(kept)})]


def unsqueeze(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Insert axes of size one."""
    free = [axis for axis in range(len(trace.shape(step.outputs[0]))) if axis not in step.attributes["axes"]]
    return [_moved(trace, trace.blocks(step.inputs[0]), dict(enumerate(free)))]


def reduction(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Compute one number of all entries along some axes."""
    axes, rank = step.attributes["axes"], len(trace.shape(step.inputs[0]))
    whole = [block for block in trace.blocks(step.inputs[0]) if not set(block.axes) <= set(axes)]
    kept = [axis for axis in range(rank) if axis not in axes]
    place = {axis: axis if step.attributes["keepdims"] else at for at, axis in enumerate(kept)}
    return [_moved(trace, trace.collapsed(whole, axes, "one number is computed of it"), place)]


def concat(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Join values along one axis; along the others they agree."""
    axis, rank = int(step.attributes["axis"]), len(trace.shape(step.outputs[0]))
    names = [str(name) for name in step.inputs]
    parts = [next((block for block in trace.blocks(name) if axis in block.axes), None) for name in names]
    whole = {block.axes if block is not None else None for block in parts}
    if len(whole) > 1 or any(trace.is_constant(name) for name in names):
        for name in names:
            trace.along(name, axis)
        parts = [next((block for block in trace.blocks(name) if axis in block.axes), None) for name in names]
    operands = []
    for position, name in enumerate(names):
        operand = operand_of(trace, name, position, range(rank))
        letters = tuple(None if at == axis else letter for at, letter in enumerate(operand.letters))
        others = tuple(block for block in operand.blocks if axis not in block.letters)
        operands.append(Operand(position, letters, operand.sizes, others, operand.constant))
    found = placed(trace, merge(trace, number, operands), range(rank))
    if any(part is not None for part in parts):
        found += _strung(trace, number, names, parts, axis)
    return [found]


def _strung(trace: Trace, number: int, names: Sequence[str], parts: Sequence[Block | None], axis: int) -> list[Block]:
    """The joined axis; parts without channels get new ones, which stay if the part is computed."""
    axes = next(part.axes for part in parts if part is not None)
    strung: list[Ids] = []
    for position, (name, part) in enumerate(zip(names, parts, strict=True)):
        ids = part.ids if part is not None else trace.units.new(trace.shape(name)[axis])
        if part is None and not trace.is_constant(name):
            trace.units.fix(ids, "it is joined with other channels")
        trace.use(number, position, [axis], ids)
        strung.append(ids)
    block = in_order(trace, Block(axes, np.concatenate(strung, axes.index(axis))))
    return [] if block is None else [block]


def split(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Cut a value into pieces along one axis."""
    axis, blocks = int(step.attributes["axis"]), trace.blocks(step.inputs[0])
    ends = np.cumsum(step.attributes["sizes"]).tolist()
    found = []
    for start, stop in zip([0, *ends], ends, strict=False):
        found.append([_taken(block, axis, np.arange(start, stop)) for block in blocks])
    return found


def _taken(block: Block, axis: int, entries: Ids) -> Block:
    if axis not in block.axes:
        return block
    return Block(block.axes, block.ids.take(entries, block.axes.index(axis)))


def cut(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Take the entries between two places, along some axes; one that takes every other entry gets a fixed size."""
    blocks = trace.blocks(step.inputs[0])
    for axis, start, stop, stride in step.attributes["cuts"]:
        if any(isinstance(place, Scaled) for place in (start, stop)) or abs(stride) != 1:
            blocks = trace.collapsed(blocks, [axis], FIXED_CUT)
            continue
        entries = np.arange(start, stop, stride)
        whole = stride == 1 and len(entries) == trace.shape(step.inputs[0])[axis]
        blocks = [_taken(block, axis, entries) for block in (blocks if whole else _sliced(trace, blocks, axis))]
    return [blocks]


def _sliced(trace: Trace, blocks: Sequence[Block], axis: int) -> list[Block]:
    """The blocks, of which those of several axes with `axis` last lose it: its entries differ from row to row."""
    found = []
    for block in blocks:
        if len(block.axes) > 1 and block.axes[-1] == axis:
            rest = trace.collapse(block, [axis], FIXED_CUT)
            found += [] if rest is None else [rest]
        else:
            found.append(block)
    return found


def gather(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Take entries by index along one axis; the axes of the indices replace it."""
    axis, indices = int(step.attributes["axis"]), np.asarray(step.attributes["indices"], np.int64)
    found = []
    for block in trace.blocks(step.inputs[0]):
        place = {old: old if old < axis else old + indices.ndim - 1 for old in block.axes}
        if axis not in block.axes:
            found.append(Block(tuple(place.values()), block.ids))
        elif indices.ndim == 1:
            found += [_taken(one, axis, indices) for one in _sliced(trace, [block], axis)]
        else:
            at = block.axes.index(axis)
            trace.picks.append((block.ids, at, np.unique(indices).tolist()))
            if len(block.axes) > 1 and indices.ndim == 0:
                rest = Block(
                    tuple(place[old] for old in block.axes if old != axis), np.asarray(block.ids.take(indices, at))
                )
                found.append(rest)
            else:
                trace.units.fix(block.ids.take(np.unique(indices), at), FIXED_CUT)
    return [found]


def pad(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Add entries before and behind; along channels they are new channels."""
    blocks, pads = trace.blocks(step.inputs[0]), step.attributes["pads"]
    grown = [axis for axis, (before, after) in enumerate(pads) if before or after]
    found = []
    for block in blocks:
        changed = [axis for axis in block.axes if axis in grown]
        if not changed:
            found.append(block)
        elif len(block.axes) > 1 or min(pads[changed[0]]) < 0 or step.attributes["mode"] != "constant":
            found += trace.collapsed([block], changed, "its border is padded")
        else:
            before, after = pads[changed[0]]
            ids = np.concatenate([trace.units.new(before), block.ids, trace.units.new(after)])
            found.append(Block(block.axes, ids))
    return [found]


def expand(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Repeat a value along axes of size one; along these, and along the axes of a constant, are new channels."""
    shape, name = trace.shape(step.outputs[0]), str(step.inputs[0])
    own = trace.shape(name)
    shift, constant = len(shape) - len(own), trace.is_constant(name)
    found = [Block(tuple(axis + shift for axis in block.axes), block.ids) for block in trace.blocks(name)]
    for axis, size in enumerate(shape):
        repeated = axis < shift or own[axis - shift] == 1
        grows = isinstance(step.attributes["shape"][axis], Scaled)
        if size > 1 and not grows and (repeated or constant):
            ids = trace.units.new(size)
            trace.use(number, 0, [None if repeated else axis - shift], ids)
            found.append(Block((axis,), ids))
    return [found]


def tile(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Repeat a value as a whole along each axis."""
    found = []
    for block in trace.blocks(step.inputs[0]):
        repeats = [int(step.attributes["repeats"][axis]) for axis in block.axes]
        found.append(Block(block.axes, np.tile(block.ids, repeats)))
    return [found]


def depth_to_space(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Deal blocks of channels out over pixels; channels that become one are removed together."""
    ids, area = trace.along(step.inputs[0], 1), int(step.attributes["blocksize"]) ** 2
    trace.collapsed(trace.blocks(step.inputs[0]), [2, 3], "blocks of it become channels")
    if ids is None:
        return [[]]
    parts = ids.reshape(-1, area) if step.attributes["mode"] == "CRD" else ids.reshape(area, -1).T
    trace.units.unite(parts, parts[:, :1])
    return [[Block((1,), parts[:, 0])]]


def space_to_depth(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Make channels of blocks of pixels."""
    ids, area = trace.along(step.inputs[0], 1), int(step.attributes["blocksize"]) ** 2
    trace.collapsed(trace.blocks(step.inputs[0]), [2, 3], "blocks of it become channels")
    return [[] if ids is None else [Block((1,), np.tile(ids, area))]]


def sampled(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Sample images at the places of a grid, which has a fixed size."""
    for block in trace.blocks(step.inputs[1]):
        trace.units.fix(block.ids, "it says where images are sampled")
    blocks = trace.collapsed(trace.blocks(step.inputs[0]), [2, 3], "images are sampled along it")
    return [[block for block in blocks if block.axes == (1,)]]


def triangle(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Zero a triangle of the last two axes."""
    rank = len(trace.shape(step.inputs[0]))
    return [trace.collapsed(trace.blocks(step.inputs[0]), [rank - 2, rank - 1], "a triangle is cut of it")]


RULES: dict[str, StepRule] = {
    "Reshape": reshape,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    **dict.fromkeys(REDUCTIONS, reduction),
    "Split": split,
    "Slice": cut,
    "Gather": gather,
    "Pad": pad,
    "Expand": expand,
    "Tile": tile,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "GridSample": sampled,
    "Trilu": triangle,
}
