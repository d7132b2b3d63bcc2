"""Merging: the operands of a step that are combined entry by entry, or summed over common axes, agree on channels.

Axes are named by letters here: the axes of the result of an elementwise step, or the letters of an Einstein sum.
"""

from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from dfkd_core.narrowing.trace import Block, Role, Trace
from dfkd_core.narrowing.units import Ids

Letter = Hashable


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand: a letter for each of its axes, None where the axis has size 1 and is repeated."""

    position: int  # index among the step's inputs
    letters: tuple[Letter | None, ...]
    sizes: tuple[int, ...]
    blocks: tuple["Lettered", ...]
    constant: bool


@dataclass(frozen=True, slots=True)
class Lettered:
    """A block whose axes are letters."""

    letters: tuple[Letter, ...]
    ids: Ids


def operand_of(trace: Trace, name: str, position: int, letters: Sequence[Letter]) -> Operand:
    """Return an operand of a step; `letters` names all its axes."""
    sizes = trace.shape(name)
    blocks = tuple(Lettered(tuple(letters[axis] for axis in block.axes), block.ids) for block in trace.blocks(name))
    kept = tuple(letter if size > 1 else None for letter, size in zip(letters, sizes, strict=True))
    return Operand(position, kept, sizes, blocks, trace.is_constant(name))


def merge(
    trace: Trace,
    number: int,
    operands: Sequence[Operand],
    *,
    summed: AbstractSet[Letter] = frozenset(),
    product: bool = False,
) -> list[Lettered]:
    """Unite the channels of operands along their common letters, and return the blocks of the result.

    Letters in `summed` are not in the result: where they share a block with other letters, those stay. The axes of
    constants become uses; axes that only constants have get new channels, which in a `product` are outputs of a layer.
    """
    found = []
    for letters in _components([block.letters for operand in operands for block in operand.blocks]):
        merged = _unite(trace, operands, letters, summed)
        for operand in operands:
            if operand.constant:
                roles: Role = "in" if product and set(letters) & summed else "other"
                _use(trace, number, operand, merged, roles)
        found.append(merged)
    return [*found, *_made(trace, number, operands, summed, product=product)]


def placed(trace: Trace, blocks: Sequence[Lettered], order: Sequence[Letter]) -> list[Block]:
    """Return the blocks of a result whose axes have the letters `order`. Blocks without any of them are left out."""
    found = []
    for lettered in blocks:
        kept = [letter for letter in lettered.letters if letter in order]
        if not kept:
            continue
        axes = [order.index(letter) if letter in order else -1 for letter in lettered.letters]
        block = trace.simplified(Block(tuple(axes), lettered.ids))
        if block is not None:
            block = in_order(trace, block)
            found += [] if block is None else [block]
    return found


def in_order(trace: Trace, block: Block) -> Block | None:
    """Return a block with ascending axes. If they were in another order, only its largest axis keeps its channels."""
    if list(block.axes) != sorted(block.axes):
        largest = block.axes[int(np.argmax(block.ids.shape))]
        others = [axis for axis in block.axes if axis != largest]
        return trace.collapse(block, others, "its channels are dealt out in another order")
    return block


def _components(blocks: Sequence[tuple[Letter, ...]]) -> list[tuple[Letter, ...]]:
    """Letters that share a block, directly or by way of others, in the order of the largest block."""
    found: list[set[Letter]] = []
    for letters in blocks:
        touched = [known for known in found if known & set(letters)]
        found = [known for known in found if known not in touched] + [set(letters).union(*touched)]
    ordered = []
    for component in found:
        order: list[Letter] = []
        for letters in sorted(blocks, key=len, reverse=True):
            order += [letter for letter in letters if letter in component and letter not in order]
        ordered.append(tuple(order))
    return ordered


def _unite(
    trace: Trace, operands: Sequence[Operand], letters: tuple[Letter, ...], summed: AbstractSet[Letter]
) -> Lettered:
    arrays: list[Ids] = []
    fixed: set[Letter] = set()
    for operand in operands:
        if operand.constant:
            continue
        own = [block for block in operand.blocks if set(block.letters) & set(letters)]
        covered = {letter for block in own for letter in block.letters}
        fixed |= ({letter for letter in operand.letters if letter is not None} & set(letters)) - covered
        arrays += [_expanded(block, letters) for block in own]
    sizes = np.broadcast_shapes(*(array.shape for array in arrays))
    ids: Ids = np.broadcast_to(arrays[0], sizes)
    for array in arrays[1:]:
        trace.units.unite(ids, array)
    vanishing = set(letters) & summed
    for letter in fixed | (vanishing if set(letters) - summed else set()):
        trace.units.unite(ids, ids.take([0], letters.index(letter)))
    if fixed == set(letters):
        trace.units.fix(ids, "it meets values of a fixed size")
    return Lettered(letters, trace.units.find(ids))


def _expanded(block: Lettered, letters: tuple[Letter, ...]) -> Ids:
    """The channels of a block as an array with one dimension for each letter, of size 1 where it has none."""
    own = [letter for letter in letters if letter in block.letters]
    ids = block.ids.transpose([block.letters.index(letter) for letter in own])
    sizes = iter(ids.shape)
    return ids.reshape([next(sizes) if letter in own else 1 for letter in letters])


def _use(trace: Trace, number: int, operand: Operand, merged: Lettered, role: Role) -> None:
    axes = [operand.letters.index(x) if x in operand.letters else None for x in merged.letters]
    trace.use(number, operand.position, axes, merged.ids, role)


def _made(
    trace: Trace, number: int, operands: Sequence[Operand], summed: AbstractSet[Letter], *, product: bool
) -> list[Lettered]:
    """New channels for the axes that only constants have; those of one constant are one block."""
    known: set[Letter | None] = {None, *summed}
    known |= {letter for operand in operands if not operand.constant for letter in operand.letters}
    found = []
    for operand in operands:
        letters = tuple(letter for letter in operand.letters if letter not in known)
        if operand.constant and letters:
            sizes = [operand.sizes[operand.letters.index(letter)] for letter in letters]
            made = Lettered(letters, trace.units.new(*sizes))
            for other in operands:
                if other.constant:
                    _use(trace, number, other, made, "out" if product else "other")
            found.append(made)
            known |= set(letters)
    return found
