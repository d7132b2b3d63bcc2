"""`Trace`: the channels of every value of a plan, found by walking through its steps once.

An axis of a value has channels if a narrower network may have fewer entries along it. A block is one or more axes with
their channels. Several axes form one block where a reshape has split one axis: of the axis 3 x heads x size that
attention splits, nobody knows at first which part will lose entries. Later steps unite channels until one axis is left:
the product of queries and keys unites all entries of a head, because it sums over them. An axis without a block has a
fixed size.

A block of several axes that is never resolved keeps all its rows (the entries of all axes but the last), and each row
loses equally many entries of its own choice. Grouped convolutions and group normalisation need just that.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dfkd_core.narrowing.units import Ids, Units
from dfkd_core.onnx_import.ir.plan import Plan, Shape, Step

Role = Literal["out", "in", "scale", "statistic", "other"]
"""What a constant is to the channels of a block: a weight that makes them, a weight that reads them, a scale of a
normalisation, a running statistic, or anything else (biases, added constants).
"""


@dataclass(frozen=True, slots=True)
class Block:
    """Axes of a value, ascending, and their channels: an array with one dimension for each axis."""

    axes: tuple[int, ...]
    ids: Ids


@dataclass(frozen=True, slots=True)
class Use:
    """Axes of a constant, as one operand of one step, that have the channels of a block.

    `axes` has an entry for each dimension of `ids`: the axis of the constant, or None if the constant has size 1 there.
    """

    step: int
    position: int  # index among the step's inputs
    axes: tuple[int | None, ...]
    ids: Ids
    role: Role
    view: Shape | None = None  # the constant is read in this shape, whose first two axes are one axis of the constant


@dataclass(slots=True)
class Trace:
    """The blocks of all values and constants, and the conditions on them."""

    plan: Plan
    units: Units = field(default_factory=Units)
    values: dict[str, list[Block]] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    rows: list[Ids] = field(default_factory=list)  # (rows, entries): each row loses equally many entries
    picks: list[tuple[Ids, int, Sequence[int]]] = field(default_factory=list)  # block, its axis, entries that must stay

    def shape(self, name: str | None) -> Shape:
        """Return the shape of a value or a constant for one image."""
        return self.plan.shapes[str(name)]

    def is_constant(self, name: str | None) -> bool:
        """Return whether the name is that of a constant of the plan."""
        return name in self.plan.constants

    def blocks(self, name: str | None) -> list[Block]:
        """Return the blocks of a value as they are now; a constant has none."""
        return [block for kept in self.values.get(str(name), []) if (block := self.simplified(kept)) is not None]

    def along(self, name: str | None, axis: int) -> Ids | None:
        """Return the channels of one axis (n,); other axes of its block lose theirs. None if the axis has none."""
        for block in self.blocks(name):
            if axis in block.axes:
                self.collapse(block, [other for other in block.axes if other != axis], "two of its axes were one")
                left = self.simplified(block)
                return None if left is None else left.ids
        return None

    def simplified(self, block: Block) -> Block | None:
        """Return the block without the axes along which all entries are one set; None if no axis is left."""
        ids, axes = self.units.find(block.ids), list(block.axes)
        for at in reversed(range(len(axes))):
            first = ids.take([0], at)
            if np.array_equal(np.broadcast_to(first, ids.shape), ids):
                ids = np.take(ids, [0], at).reshape([*ids.shape[:at], *ids.shape[at + 1 :]])
                del axes[at]
        return Block(tuple(axes), ids) if axes else None

    def collapse(self, block: Block, axes: Collection[int], reason: str) -> Block | None:
        """Unite the entries of a block along some of its axes, which thereby get a fixed size, and return the rest."""
        for at, axis in enumerate(block.axes):
            if axis in axes:
                self.units.unite(block.ids, block.ids.take([0], at))
        rest = self.simplified(block)
        if rest is None:
            self.units.fix(block.ids, reason)
        return rest

    def collapsed(self, blocks: Iterable[Block], axes: Collection[int], reason: str) -> list[Block]:
        """Return the blocks after `axes` have got a fixed size."""
        found = [self.collapse(block, axes, reason) if set(block.axes) & set(axes) else block for block in blocks]
        return [block for block in found if block is not None]

    def use(self, number: int, position: int, axes: Sequence[int | None], ids: Ids, role: Role = "other") -> None:
        """Note that a constant operand of a step has the channels `ids`, if the operand is a constant."""
        step = self.plan.steps[number]
        name = step.inputs[position] if position < len(step.inputs) else None
        if name is not None and self.is_constant(name) and any(axis is not None for axis in axes):
            self.uses.append(Use(number, position, tuple(axes), ids, role))

    def fix_all(self, step: Step, reason: str) -> None:
        """Fix all channels that a step reads."""
        for name in step.inputs:
            for block in self.blocks(name):
                self.units.fix(block.ids, reason)


StepRule = Callable[[Trace, int, Step], list[list[Block]]]
"""Gets a trace, the number of a step and the step; returns the blocks of each output."""
