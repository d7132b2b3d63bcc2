"""Blocks: a narrowed copy of the teacher learns what the teacher's own layers put out, layer by layer.

Romero et al., *FitNets: Hints for Thin Deep Nets*, ICLR 2015, https://arxiv.org/abs/1412.6550, with a hint at every
convolution. The student kept some channels of its teacher, so it needs no regressor: each of its channels is compared
with the same channel of the teacher. A block is a convolution with the BatchNorm behind it, before any rectifier.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from dfkd_core.networks import losses
from dfkd_core.networks.hooks import hooked, layers_in_order


@dataclass(frozen=True, slots=True)
class Pair:
    """The ends of a block of the student and of the same block of the teacher."""

    own: nn.Module
    theirs: nn.Module
    kept: Tensor  # (channels of the student,), their numbers among the channels of the teacher


@dataclass(slots=True)
class Outputs:
    """What the blocks put out in one forward, (N, C, H, W) each, in the order of the pairs."""

    maps: dict[int, Tensor] = field(default_factory=dict)


class BlockMatching:
    """Compares the blocks of a student with those of the teacher that it was narrowed from."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs

    @staticmethod
    def of(student: nn.Module, teacher: nn.Module, image: Tensor) -> "BlockMatching":
        """Return the comparison of a student that has not learnt yet. `image` (1, C, H, W) shows the order of layers.

        A student that is no narrowed copy of its teacher has no pairs.
        """
        ours, theirs = _blocks(student, image), _blocks(teacher, image)
        if len(ours) != len(theirs):
            return BlockMatching([])
        found = []
        for own, other in zip(ours, theirs, strict=True):
            kept = _kept(own, other)
            if kept is not None:
                found.append(Pair(own.end, other.end, kept))
        return BlockMatching(found)

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self._pairs)

    @contextmanager
    def watching_teacher(self, count: int) -> Iterator[Outputs]:
        """Record the teacher's maps of the first `count` images at a forward while the context is open.

        They have the channels that the student has.
        """
        with _watched([(pair.theirs, pair.kept) for pair in self._pairs], count=count) as outputs:
            yield outputs

    @contextmanager
    def watching_student(self) -> Iterator[Outputs]:
        """Record the student's maps at a forward while the context is open."""
        with _watched([(pair.own, None) for pair in self._pairs], count=None) as outputs:
            yield outputs

    def loss(self, ours: Outputs, theirs: Outputs) -> Tensor:
        """Return the mean over blocks of what the student gets wrong on the teacher's recorded images, a scalar."""
        wrong = [
            losses.unexplained_channels(ours.maps[number], theirs.maps[number]) for number in range(len(self._pairs))
        ]
        return torch.stack(wrong).mean()


@dataclass(frozen=True, slots=True)
class _Block:
    convolution: nn.Conv2d
    end: nn.Module  # the BatchNorm behind the convolution, or the convolution


@contextmanager
def _watched(layers: Sequence[tuple[nn.Module, Tensor | None]], *, count: int | None) -> Iterator[Outputs]:
    seen = Outputs()

    def keep(number: int, maps: Tensor, chosen: Tensor | None) -> None:
        seen.maps[number] = maps if chosen is None else _channels(maps[:count], chosen)

    handles = (
        layer.register_forward_hook(
            lambda _module, _inputs, maps, number=number, chosen=chosen: keep(number, maps, chosen)
        )
        for number, (layer, chosen) in enumerate(layers)
    )
    with hooked(handles):
        yield seen


def _channels(maps: Tensor, chosen: Tensor) -> Tensor:
    """Return some channels of maps (N, C, H, W), in channels-last order."""
    return maps.permute(0, 2, 3, 1).index_select(3, chosen).permute(0, 3, 1, 2)


def _blocks(network: nn.Module, image: Tensor) -> list[_Block]:
    layers = list(layers_in_order(network, image).values())
    return [
        _Block(layer, after if isinstance(after, nn.BatchNorm2d) else layer)
        for layer, after in pairwise([*layers, None])
        if isinstance(layer, nn.Conv2d)
    ]


def _kept(own: _Block, other: _Block) -> Tensor | None:
    """Return which channels of the teacher's block the student's block has kept.

    Narrowing changes no value of a channel's BatchNorm and no bias, so equal values tell. A few channels may share
    their values, as dead ones do. The result is None if the values do not tell, or if the convolutions differ in kind.
    """
    if _geometry(own.convolution) != _geometry(other.convolution):
        return None
    ours, theirs = _marks(own, other), _marks(other, own)
    if ours is None or theirs is None:
        return None
    same = (ours[:, None] == theirs[None]).all(dim=2)  # (channels of the student, channels of the teacher)
    matches = same.sum(dim=1)
    told = bool((matches > 0).all()) and int((matches == 1).sum()) > len(matches) // 2
    return same.int().argmax(dim=1) if told else None


def _geometry(convolution: nn.Conv2d) -> tuple[object, ...]:
    return convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation


def _marks(block: _Block, partner: _Block) -> Tensor | None:
    """Return the values of each channel by which a channel of the partner is recognised: (channels, values)."""
    if isinstance(block.end, nn.BatchNorm2d) and isinstance(partner.end, nn.BatchNorm2d):
        norm = block.end
        values = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    else:
        values = [block.convolution.bias]
    known = [value.detach() for value in values if value is not None]
    return torch.stack(known, dim=1) if known else None
