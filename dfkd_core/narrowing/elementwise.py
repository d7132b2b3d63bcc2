"""Rules of steps that work entry by entry, and of normalisations: the channels of the result are those of the input."""

from dfkd_core.narrowing.merging import merge, operand_of, placed
from dfkd_core.narrowing.trace import Block, StepRule, Trace
from dfkd_core.onnx_import.ir.plan import Step
from dfkd_core.onnx_import.ops import elementwise


def broadcast(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Combine several operands of possibly different ranks."""
    rank = len(trace.shape(step.outputs[0]))
    operands = []
    for position, name in enumerate(step.inputs):
        if name is not None:
            letters = range(rank - len(trace.shape(name)), rank)
            operands.append(operand_of(trace, name, position, letters))
    return [placed(trace, merge(trace, number, operands), range(rank))]


def passed(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    """Hand on the channels of the first input."""
    return [trace.blocks(step.inputs[0])]


def batchnorm(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Use scale, shift and running statistics along the channels (axis 1)."""
    for block in trace.blocks(step.inputs[0]):
        if 1 in block.axes:
            axes = [0 if axis == 1 else None for axis in block.axes]
            for position in (1, 2, 3, 4):
                role = "scale" if position == 1 else "statistic" if position > 2 else "other"
                trace.use(number, position, axes, block.ids, role)  # type: ignore[arg-type]  # one of the literals
    return passed(trace, number, step)


def instance_norm(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Use scale and shift along the channels (axis 1)."""
    return _scaled(trace, number, step, first=1)


def layer_norm(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Use scale and shift along the last axes."""
    rank = len(trace.shape(step.inputs[0]))
    return _scaled(trace, number, step, first=None, rank=rank)


def _scaled(trace: Trace, number: int, step: Step, *, first: int | None, rank: int = 0) -> list[list[Block]]:
    """Use the constants behind the first input; their first axis is axis `first`, or their last axis is the last."""
    for block in trace.blocks(step.inputs[0]):
        for position, name in enumerate(step.inputs[1:], start=1):
            if name is None:
                continue
            sizes = trace.shape(name)
            start = rank - len(sizes) if first is None else first
            axes = [axis - start if 0 <= axis - start < len(sizes) else None for axis in block.axes]
            axes = [None if axis is None or sizes[axis] == 1 else axis for axis in axes]
            trace.use(number, position, axes, block.ids, "scale" if position == 1 else "other")
    return passed(trace, number, step)


def group_norm(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Let every group of channels (axis 1) lose equally many; scale and shift may have one value for each group."""
    ids, groups = trace.along(step.inputs[0], 1), int(step.attributes["groups"])
    if ids is not None:
        trace.rows.append(ids.reshape(groups, -1))
        for position in (1, 2):
            if trace.shape(step.inputs[position]) == ids.shape:
                trace.use(number, position, [0], ids, "scale" if position == 1 else "other")
    return passed(trace, number, step)


def prelu(trace: Trace, number: int, step: Step) -> list[list[Block]]:
    """Combine values and slopes."""
    return broadcast(trace, number, step)


RULES: dict[str, StepRule] = {
    **dict.fromkeys((*elementwise.UNARY, "Clip", "Cast", "Softmax", "LogSoftmax", "LRN", "LpNormalization"), passed),
    **dict.fromkeys((*elementwise.BINARY, *elementwise.COMPARISONS, *elementwise.VARIADIC, "Where"), broadcast),
    "BatchNormalization": batchnorm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": layer_norm,
    "GroupNormalization": group_norm,
}
