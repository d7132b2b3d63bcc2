"""Groups: the channels of a plan sorted into groups whose members are interchangeable.

A member is a set of channels that goes as a whole. Two members are in one group if they have equally many entries along
every axis of every value and constant. How many members of each group stay therefore tells every shape of the narrower
plan, whichever members they are. Where rows must lose equally many entries (groups of a convolution), a group has
several cells, and each cell keeps equally many members.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dfkd_core.narrowing import elementwise, layers, movement
from dfkd_core.narrowing.trace import Block, StepRule, Trace, Use
from dfkd_core.narrowing.units import Ids
from dfkd_core.onnx_import.ir.plan import Plan, Step

RULES: dict[str, StepRule] = {**elementwise.RULES, **layers.RULES, **movement.RULES}
FIXED = -1  # the group of a channel that stays
ONE_SET = "all its channels can only go together"


@dataclass(frozen=True, slots=True)
class Group:
    """Members that are interchangeable: (cells, size) member names, a row for each cell."""

    cells: Ids

    @property
    def size(self) -> int:
        """The number of members."""
        return self.cells.size


@dataclass(frozen=True)
class Channels:
    """What the channels of a plan are: groups, and the axes of values and constants that have them."""

    plan: Plan
    groups: tuple[Group, ...]
    group_of: Ids  # (channels,): the group of the member of that name, or FIXED
    values: Mapping[str, tuple[Block, ...]]  # value → its blocks, whose channels are named by their members
    uses: tuple[Use, ...]
    reasons: Mapping[int, str]  # member that stays → why
    whole: Mapping[tuple[int, int], str]  # step and position of a weight all of whose outputs are one member → why

    @cached_property
    def uses_at(self) -> Mapping[tuple[int, int], list[Use]]:
        """The uses of each constant, by the step and by the position among its inputs; none where it is whole."""
        found: defaultdict[tuple[int, int], list[Use]] = defaultdict(list)
        for use in self.uses:
            found[use.step, use.position].append(use)
        return found


def channels_of(plan: Plan) -> Channels:
    """Find the groups of a plan by one walk through its steps."""
    trace = Trace(plan)
    for number, step in enumerate(plan.steps):
        rule = RULES.get(step.op, _unknown)
        for name, blocks in zip(step.outputs, rule(trace, number, step), strict=False):
            trace.values[name] = blocks
    for block in trace.blocks(plan.output_name):
        trace.units.fix(block.ids, "it is an output of the network")
    while not _settle(trace):
        pass
    return _channels(trace)


def _unknown(trace: Trace, _number: int, step: Step) -> list[list[Block]]:
    trace.fix_all(step, f"{step.op} takes it in a fixed size")
    return [[] for _ in step.outputs]


def _settle(trace: Trace) -> bool:
    """Resolve what was left open until all channels were known; False if channels were united on the way."""
    for blocks in trace.values.values():
        for kept in blocks:
            if trace.simplified(kept) is None:
                trace.units.fix(kept.ids, ONE_SET)
    for ids, at, entries in trace.picks:
        block = trace.simplified(Block(tuple(range(ids.ndim)), ids))
        if block is not None and block.axes[-1] == at:
            trace.units.fix(block.ids.take(entries, len(block.axes) - 1), movement.FIXED_CUT)
    for use in trace.uses:
        rest = _of_use(trace, use)
        if rest is not None and None in rest.axes:
            _unite_rows(trace, use.ids)
            return False
    classes, staying = _classes(trace), _staying(trace)
    cells = classes.copy()
    for rows in _rows(trace):
        if not _is_even(rows, classes, staying):
            _unite_rows(trace, rows)
            return False
        cells = _refined(cells, rows)
    for rows in _rows(trace):
        members = np.unique(rows)
        if any(len(set(_sizes(cells[members[classes[members] == kind]]))) > 1 for kind in np.unique(classes[members])):
            _unite_rows(trace, rows)
            return False
    return True


def _of_use(trace: Trace, use: Use) -> Use | None:
    """The use without the dimensions along which all entries are one set; None if the constant keeps its size.

    A constant that has only rows of a block keeps its size, because rows stay.
    """
    block = trace.simplified(Block(tuple(range(use.ids.ndim)), use.ids))
    if block is None or use.axes[block.axes[-1]] is None:
        return None
    axes = tuple(use.axes[at] for at in block.axes)
    return Use(use.step, use.position, axes, block.ids, use.role, use.view)


def _unite_rows(trace: Trace, rows: Ids) -> None:
    by_row = rows.reshape(-1, rows.shape[-1])
    trace.units.unite(by_row, by_row[:1])


def _rows(trace: Trace) -> Iterable[Ids]:
    """All arrays (rows, entries) whose rows must lose equally many entries."""
    for rows in trace.rows:
        yield trace.units.find(rows)
    for name in trace.values:
        for block in trace.blocks(name):
            if len(block.axes) > 1:
                yield block.ids.reshape(-1, block.ids.shape[-1])


def _records(trace: Trace) -> list[Ids]:
    """The channels along every block of a value and every use of a constant."""
    records = [block.ids for name in trace.values for block in trace.blocks(name)]
    return records + [use.ids for kept in trace.uses if (use := _of_use(trace, kept)) is not None]


def _classes(trace: Trace) -> Ids:
    """For each channel that names a member a number; equal numbers mean equally many entries along every axis."""
    classes = np.zeros(len(trace.units), np.int64)
    top = 0
    for ids in [*_records(trace), np.flatnonzero(_staying(trace))]:
        members, counts = np.unique(ids, return_counts=True)
        if not members.size:
            continue
        _, numbers = np.unique(np.stack([classes[members], counts]), axis=1, return_inverse=True)
        classes[members] = top + 1 + numbers.reshape(-1)
        top += 1 + int(numbers.max())
    return classes


def _staying(trace: Trace) -> NDArray[np.bool_]:
    """For each channel whether the member that it names stays: for a reason, or because it has no weights."""
    staying = np.ones(len(trace.units), np.bool_)
    for kept in trace.uses:
        use = _of_use(trace, kept)
        if use is not None:
            staying[use.ids.ravel()] = False
    staying[list(trace.units.reasons())] = True
    return staying


def _is_even(rows: Ids, classes: Ids, staying: NDArray[np.bool_]) -> bool:
    """Whether rows lose equally many entries where each class loses equally many members from each of its rows."""
    if len(rows) < 2:
        return True
    members, counts = _counts(rows)
    mixed = (counts > 0).sum(axis=1) > 1
    if not (counts[mixed] == counts[mixed][:, :1]).all():
        return False
    own = members[~mixed]
    if len(set(counts[~mixed].max(axis=1).tolist())) > 1:
        return False
    row = counts[~mixed].argmax(axis=1)
    kinds = []
    for at in range(len(rows)):
        inside = own[row == at]
        numbers, sizes = np.unique(classes[inside], return_counts=True)
        stay = [bool(staying[inside[classes[inside] == number][0]]) for number in numbers]
        kinds.append(sorted(zip(stay, sizes.tolist(), strict=True)))
    return all(kind == kinds[0] for kind in kinds)


def _sizes(numbers: Ids) -> list[int]:
    return list(np.unique(numbers, return_counts=True)[1].tolist())


def _counts(rows: Ids) -> tuple[Ids, Ids]:
    """The members (m,) in an array (rows, entries), and how many entries each has in each row: (m, rows)."""
    members, where = np.unique(rows, return_inverse=True)
    counts = np.zeros((len(members), len(rows)), np.int64)
    row = np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)
    np.add.at(counts, (where.reshape(rows.shape), row), 1)
    return members, counts


def _channels(trace: Trace) -> Channels:
    values = {name: tuple(trace.blocks(name)) for name in trace.values}
    uses = tuple(use for kept in trace.uses if (use := _of_use(trace, kept)) is not None)
    classes, staying = _classes(trace), _staying(trace)
    cells = classes.copy()
    for rows in _rows(trace):
        cells = _refined(cells, rows)
    groups: list[Group] = []
    group_of = np.full(len(trace.units), FIXED, np.int64)
    members = np.unique(_flat(use.ids for use in uses))
    members = members[~staying[members]]
    for number in dict.fromkeys(classes[members].tolist()):
        own = members[classes[members] == number]
        by_cell = [own[cells[own] == cell] for cell in dict.fromkeys(cells[own].tolist())]
        group_of[own] = len(groups)
        groups.append(Group(np.stack(by_cell)))
    return Channels(trace.plan, tuple(groups), group_of, values, uses, trace.units.reasons(), _whole(trace))


def _whole(trace: Trace) -> dict[tuple[int, int], str]:
    """Return why the outputs of a layer stay, for each weight whose outputs can only go together."""
    reasons, found = trace.units.reasons(), {}
    for use in trace.uses:
        if use.role == "out" and use.ids.size and _of_use(trace, use) is None:
            member = int(trace.units.find(use.ids).flat[0])
            found[use.step, use.position] = reasons.get(member, ONE_SET)
    return found


def _flat(arrays: Iterable[Ids]) -> Ids:
    return np.concatenate([np.zeros(0, np.int64), *(array.ravel() for array in arrays)])


def _refined(cells: Ids, rows: Ids) -> Ids:
    """Cells that are also apart where their members are in different rows."""
    members, counts = _counts(rows)
    inside = (counts > 0).sum(axis=1) == 1
    if len(rows) < 2 or not inside.any():
        return cells
    refined = cells.copy()
    keys = np.stack([cells[members[inside]], counts[inside].argmax(axis=1)])
    _, numbers = np.unique(keys, axis=1, return_inverse=True)
    refined[members[inside]] = cells.max() + 1 + numbers.reshape(-1)
    return refined
