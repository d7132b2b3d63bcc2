"""Pruning: a copy of any network with fewer channels. The best channels stay, with their weights.

The network's graph determines which channels must be removed together (Fang, Ma, Song, Mi, Wang: *DepGraph: Towards Any
Structural Pruning*, CVPR 2023, https://arxiv.org/abs/2301.12900, through the library Torch-Pruning). A group of
channels is scored by the mean L2 norm of all its incoming and outgoing weights; the groups with the lowest scores go.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch_pruning as tp
from torch import Tensor, nn

from dfkd_core.architectures.family import scaled
from dfkd_core.errors import StudentError

Keep = Callable[[str, int], int]
"""Name of a layer and its number of output channels → how many of them stay."""

BISECTIONS = 12  # steps of the search for the width that gives a number of parameters
TRIAL_BATCHES = (1, 3)
FAILURES = (RuntimeError, IndexError, ValueError, TypeError, AttributeError, KeyError)  # of a graph that does not fit


@dataclass(frozen=True, slots=True)
class Pruned:
    """A pruned network, and the layers that had to keep their channels because the graph fixes their number."""

    network: nn.Module
    kept: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Original:
    """The network to prune: it maps images (N, C, H, W) of `input_shape` to the outputs of the layer `classifier`."""

    network: nn.Module
    input_shape: tuple[int, int, int]
    classifier: str


def prune(original: Original, keep: Keep, *, whole: Sequence[str] = ()) -> Pruned:
    """Return a copy whose layers have the numbers of channels that `keep` gives. The classifier keeps all its outputs.

    Groups that cannot be cut without breaking the graph (fixed reshapes, attention heads) stay whole, and the result
    names them. Groups in `whole` stay whole without a try. Nothing is drawn at random.
    """
    pruner = _Pruner(original, keep)
    thinner = pruner.thinner(original.network, lambda name: name not in whole)
    if thinner is not None:
        return Pruned(thinner, list(whole))
    current, kept = copy.deepcopy(original.network), list(whole)
    for root in pruner.roots():
        if root not in kept:
            thinner = pruner.thinner(current, root.__eq__)
            current = current if thinner is None else thinner
            kept += [root] if thinner is None else []
    return Pruned(current, kept)


def prune_to_width(original: Original, width: float, *, whole: Sequence[str] = ()) -> Pruned:
    """Return a copy in which every hidden number of channels is `scaled` by `width`."""
    return prune(original, lambda _name, count: scaled(count, width), whole=whole)


def prune_to_parameters(original: Original, parameters: int) -> tuple[Pruned, float]:
    """Return the widest uniformly narrowed copy with at most `parameters` trained values, and its width.

    Raises:
        StudentError: even a copy with one channel a layer has more parameters.
    """
    narrowest = prune_to_width(original, 0.0)
    whole, best = narrowest.kept, None
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        width = (low + high) / 2
        found = prune_to_width(original, width, whole=whole)
        if count_parameters(found.network) <= parameters:
            low, best = width, (found, width)
        else:
            high = width
    if best is None:
        smallest = count_parameters(narrowest.network)
        raise StudentError(
            f"the teacher's graph cannot be narrowed to {parameters} parameters; {smallest} is the least",
            pointer="/student/params",
        )
    return best


def count_parameters(network: nn.Module) -> int:
    """Number of trained values."""
    return sum(parameter.numel() for parameter in network.parameters())


@dataclass(frozen=True, slots=True)
class _Pruner:
    """Cuts groups of channels out of copies of a network and tries the result."""

    original: Original
    keep: Keep

    def roots(self) -> list[str]:
        """For each group of coupled channels, the layer that gives the group its name."""
        twin = _differentiable(self.original.network)
        names = {module: name for name, module in twin.named_modules()}
        return [names[group[0].dep.target.module] for group in self._groups(self._graph(twin), twin)]

    def thinner(self, network: nn.Module, wanted: Callable[[str], bool]) -> nn.Module | None:
        """Return a copy in which the named groups are cut; None if the copy does not run."""
        twin = _differentiable(network)
        try:
            self._cut(twin, wanted)
            self._try(twin)
        except FAILURES:
            return None
        return twin

    def _cut(self, network: nn.Module, wanted: Callable[[str], bool]) -> None:
        graph = self._graph(network)
        names = {module: name for name, module in network.named_modules()}
        score = tp.importance.GroupMagnitudeImportance(p=2)
        for group in self._groups(graph, network):
            module, count = group[0].dep.target.module, len(group[0].idxs)
            name = names[module]
            staying = min(count, self.keep(name, count))
            if staying == count or not wanted(name):
                continue
            weakest = _ascending(score(group))[: count - staying]
            chosen = graph.get_pruning_group(module, group[0].dep.handler, weakest)
            if not graph.check_pruning_group(chosen):
                raise ValueError(f"the channels of {name} cannot be cut")
            chosen.prune()

    def _graph(self, network: nn.Module) -> tp.DependencyGraph:
        example = torch.zeros(2, *self.original.input_shape)
        return tp.DependencyGraph().build_dependency(network, example_inputs=example, verbose=False)

    def _groups(self, graph: tp.DependencyGraph, network: nn.Module) -> Iterator[tp.Group]:
        ignored = [network.get_submodule(self.original.classifier)]
        yield from graph.get_all_groups(ignored_layers=ignored, root_module_types=[nn.Conv2d, nn.Linear])

    @torch.no_grad()
    def _try(self, thinner: nn.Module) -> None:
        """Raise an error if the pruned copy does not give logits of the same shape for several batch sizes."""
        for count in TRIAL_BATCHES:
            images = torch.zeros(count, *self.original.input_shape)
            if thinner(images).shape != self.original.network(images).shape:
                raise ValueError("the logits have another shape")


def _ascending(scores: Tensor) -> list[int]:
    order: list[int] = scores.sort(stable=True).indices.tolist()
    return order


def _differentiable(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode whose weights take part in autograd, as tracing needs."""
    return copy.deepcopy(network).eval().requires_grad_(True)
