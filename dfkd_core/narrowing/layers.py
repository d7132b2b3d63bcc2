"""Rules of convolutions, matrix products, Einstein sums, attention and pooling."""

from collections.abc import Sequence

import numpy as np

from dfkd_core.narrowing.merging import Lettered, Operand, merge, operand_of, placed
from dfkd_core.narrowing.trace import Block, StepRule, Trace, Use
from dfkd_core.narrowing.units import Ids
from dfkd_core.onnx_import.ir.plan import Step

SLIDING = "a window slides along it"


def sliding(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Keep the axes of images and channels (0 and 1), and those along which fewer entries leave the step as it is."""
    rank = len(trace.shape(step.inputs[0]))
    axes = [
        axis
        for axis in range(2, rank)
        if not _is_pointwise(step, axis - 2) and not _weighs_neighbours(trace, step, axis)
    ]
    return [trace.collapsed(trace.blocks(step.inputs[0]), axes, SLIDING)]


def _is_pointwise(step: Step, at: int) -> bool:
    """Return whether the window has one entry along an axis of the pixels, and moves by one."""
    kernel = step.attributes.get("kernel")
    if kernel is None or kernel[at] != 1 or step.attributes["strides"][at] != 1:
        return False
    return not any(step.attributes["pads"][at]) and not any(step.attributes.get("extra", ()))


def _weighs_neighbours(trace: Trace, step: Step, axis: int) -> bool:
    """Return whether a convolution gives each entry along one axis a sum of its neighbours, with the same few weights.

    That is how efficient channel attention weighs channels, which lie along an axis of pixels there: Wang et al.,
    ECA-Net, CVPR 2020, https://arxiv.org/abs/1910.03151. The weights fit any number of entries, and an entry that goes
    takes its sum with it. The sums of others change, as they do where any layer loses what it reads.
    """
    if step.op != "Conv" or trace.shape(step.inputs[1])[:2] != (1, 1):
        return False
    before, after = trace.shape(step.inputs[0]), trace.shape(step.outputs[0])
    others = [at for at in range(2, len(before)) if at != axis]
    if before[1] != 1 or before[axis] != after[axis] or step.attributes["strides"][axis - 2] != 1:
        return False
    alone = all(block.axes == (axis,) for block in trace.blocks(step.inputs[0]) if axis in block.axes)
    return alone and all(before[at] == after[at] == 1 for at in others)


def convolution(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Read channels along axis 1 of the weight (out, in / groups, …), make channels along axis 0."""
    (blocks,) = sliding(trace, number, step)
    ids, weight = trace.along(step.inputs[0], 1), trace.shape(step.inputs[1])
    groups, num_in = int(step.attributes["group"]), trace.shape(step.inputs[0])[1]
    if groups == num_in and groups > 1:
        made = None if ids is None else np.repeat(ids, weight[0] // num_in)
        if made is not None:
            trace.use(number, 1, [0], made, "out")
    elif groups > 1:
        view = (groups, weight[0] // groups, *weight[1:])
        made = _grouped(trace, number, (groups, weight[0] // groups), (0, 1), view)
        if ids is not None:
            _read_in_groups(trace, number, ids.reshape(groups, -1), (0, 2), view)
    else:
        made = trace.units.new(weight[0])
        trace.use(number, 1, [0], made, "out")
        if ids is not None:
            trace.use(number, 1, [1], ids, "in")
    return _made(trace, number, made, blocks)


def transposed_convolution(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Read channels along axis 0 of the weight (in, out / groups, …), make channels along axis 1."""
    (blocks,) = sliding(trace, number, step)
    ids, weight = trace.along(step.inputs[0], 1), trace.shape(step.inputs[1])
    groups = int(step.attributes["group"])
    if groups == weight[0] and groups > 1:
        made = None if ids is None else np.repeat(ids, weight[1])
        if ids is not None:
            trace.use(number, 1, [0], ids, "out")
    elif groups > 1:
        view = (groups, weight[0] // groups, *weight[1:])
        made = _grouped(trace, number, (groups, weight[1]), (0, 2), view)
        if ids is not None:
            _read_in_groups(trace, number, ids.reshape(groups, -1), (0, 1), view)
    else:
        made = trace.units.new(weight[1])
        trace.use(number, 1, [1], made, "out")
        if ids is not None:
            trace.use(number, 1, [0], ids, "in")
    return _made(trace, number, made, blocks)


def _grouped(trace: Trace, number: int, sizes: tuple[int, int], axes: tuple[int, int], view: tuple[int, ...]) -> Ids:
    """New channels of a grouped convolution; each group loses equally many."""
    made = trace.units.new(*sizes)
    trace.rows.append(made)
    trace.uses.append(Use(number, 1, axes, made, "out", view))
    return made.reshape(-1)


def _read_in_groups(trace: Trace, number: int, ids: Ids, axes: tuple[int, int], view: tuple[int, ...]) -> None:
    trace.rows.append(ids)
    trace.uses.append(Use(number, 1, axes, ids, "in", view))


def _made(trace: Trace, number: int, made: Ids | None, blocks: Sequence[Block]) -> list[list[Block]]:
    """The channels that a convolution makes, and those along which it takes its input entry by entry."""
    passed = [block for block in blocks if 1 not in block.axes]
    if made is None:
        return [passed]
    trace.use(number, 2, [0], made)
    return [[*passed, Block((1,), made)]]


def gemm(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Multiply two matrices, and add an offset that broadcasts."""
    first = "km" if step.attributes["flip_a"] else "mk"
    second = "nk" if step.attributes["flip_b"] else "kn"
    found = _product(trace, number, step, [first, second], "mn")
    if len(step.inputs) > 2 and step.inputs[2] is not None:
        letters = range(2 - len(trace.shape(step.inputs[2])), 2)
        offset = operand_of(trace, step.inputs[2], 2, letters)
        own = Operand(0, (0, 1), trace.shape(step.outputs[0]), _lettered(found), constant=False)
        return [placed(trace, merge(trace, number, [own, offset]), range(2))]
    return [found]


def matmul(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Multiply stacks of matrices; their leading axes broadcast."""
    ranks = [len(trace.shape(name)) for name in step.inputs]
    batch = [("batch", at) for at in range(max(ranks) - 2)]
    terms: list[list[object]] = []
    for rank, inner in zip(ranks, (["m", "k"], ["k", "n"]), strict=True):
        own: list[object] = [*batch[len(batch) - (rank - 2) :]] if rank > 2 else []
        terms.append(["k"] if rank == 1 else [*own, *inner])
    result = [*batch, *(["m"] if ranks[0] > 1 else []), *(["n"] if ranks[1] > 1 else [])]
    return [_product(trace, number, step, terms, result)]


def einsum(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Multiply and sum along named axes."""
    left, _, result = str(step.attributes["equation"]).partition("->")
    terms = left.split(",")
    if any(len(set(term)) != len(term) for term in terms):
        trace.fix_all(step, "a diagonal is taken of it")
        return [[]]
    return [_product(trace, number, step, terms, result)]


def _product(
    trace: Trace, number: int, step: Step, terms: Sequence[Sequence[object]], result: Sequence[object]
) -> list[Block]:
    names = step.inputs[: len(terms)]
    operands = [operand_of(trace, str(name), at, terms[at]) for at, name in enumerate(names)]
    summed = {letter for term in terms for letter in term} - set(result)
    return placed(trace, merge(trace, number, operands, summed=summed, product=True), list(result))


def _lettered(blocks: Sequence[Block]) -> tuple[Lettered, ...]:
    return tuple(Lettered(block.axes, block.ids) for block in blocks)


def attention(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Let attention lose whole heads; query heads that share a key head go together."""
    heads, shared = step.attributes["heads"]
    made = None
    for position, name in enumerate(step.inputs[:3]):
        count = heads if position == 0 else shared
        ids = _heads(trace, str(name), count, folded=bool(step.attributes["folded"]))
        whole = None if ids is None else np.repeat(ids, heads // count)
        if whole is None or (made is None and position > 0):
            for other in step.inputs[:3]:
                for block in trace.blocks(other):
                    trace.units.fix(block.ids, "attention has a fixed number of heads")
            return [[]]
        if made is not None:
            trace.units.unite(made, whole)
        made = whole
    assert made is not None
    made = trace.units.find(made)
    _mask(trace, number, step, made)
    if step.attributes["folded"]:
        size = trace.shape(step.outputs[0])[2] // heads
        return [[Block((2,), np.repeat(made, size))]]
    return [[Block((1,), made)]]


def _heads(trace: Trace, name: str, count: int, *, folded: bool) -> Ids | None:
    """The channels of each head (heads,), after the entries of a head were united; None if the size is fixed."""
    if not folded:
        blocks = trace.collapsed(trace.blocks(name), [2, 3], "attention compares it")
        return next((block.ids for block in blocks if block.axes == (1,)), None)
    ids = trace.along(name, 2)
    if ids is None:
        return None
    by_head = ids.reshape(count, -1)
    trace.units.unite(by_head, by_head[:, :1])
    return trace.units.find(by_head[:, 0])


def _mask(trace: Trace, number: int, step: Step, made: Ids) -> None:
    if len(step.inputs) < 4 or step.inputs[3] is None:
        return
    name, sizes = step.inputs[3], trace.shape(step.inputs[3])
    axis = len(sizes) - 3
    if axis < 0 or sizes[axis] == 1:
        return
    trace.use(number, 3, [axis], made)
    if not trace.is_constant(name):
        ids = trace.along(name, axis)
        if ids is None:
            trace.units.fix(made, "attention has a mask of a fixed number of heads")
        else:
            trace.units.unite(ids, made)


RULES: dict[str, StepRule] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": gemm,
    "MatMul": matmul,
    "Einsum": einsum,
    "Attention": attention,
    **dict.fromkeys(("MaxPool", "AveragePool", "Resize", "Upsample", "Pixels"), sliding),
}
