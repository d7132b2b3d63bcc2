"""Narrowing: a copy of any network with fewer channels. The best channels stay, with their weights.

Which channels are removed together, how many stay and which is found on the network's plan (`dfkd_core.narrowing`), in
the same way as when the teacher was inspected. Here the network is made of the narrower plan.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from dfkd_core.narrowing.catalogue import plan_of
from dfkd_core.narrowing.choice import Score, choose, magnitude
from dfkd_core.narrowing.counting import counted
from dfkd_core.narrowing.cut import cut
from dfkd_core.narrowing.figures import Narrowing, staying_at, width_for
from dfkd_core.narrowing.groups import Channels, channels_of
from dfkd_core.onnx_import.ir.plan import Plan, Step
from dfkd_core.students.build import Network

Build = Callable[[Plan], nn.Module]


@dataclass(frozen=True)
class Original:
    """The network to narrow: `plan` says what it computes, and `build` makes a network of a narrower plan."""

    network: nn.Module
    plan: Plan
    build: Build
    layers: Mapping[int, str]  # number of a step with weights → name of the module that computes it
    score: Score = magnitude  # the channels with the lowest scores go

    @cached_property
    def channels(self) -> Channels:
        """The groups of channels that are removed together."""
        return channels_of(self.plan)

    @cached_property
    def narrowing(self) -> Narrowing:
        """How parameters and multiply-adds follow from the channels that stay."""
        return counted(self.channels)


def original_of(network: Network) -> Original:
    """Return a network of the catalogue as one to narrow."""
    tensors = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items() if tensor.ndim}
    plan = plan_of(network.description, tensors)
    layers = {number: step.name for number, step in enumerate(plan.steps) if len(step.inputs) > 1 and step.op != "Add"}
    return Original(network, plan, lambda thinner: _resized(network, plan, thinner), layers)


def narrow(original: Original, staying: Sequence[int]) -> nn.Module:
    """Return a copy in which each cell of a group of channels has `staying` members left, those with the best scores.

    The copy is in eval mode, and all its parameters require gradients. Nothing is drawn at random.
    """
    thinner = cut(original.channels, choose(original.channels, staying, original.score))
    return original.build(thinner).eval().requires_grad_(True)


def narrow_to_width(original: Original, width: float) -> nn.Module:
    """Return a copy in which every hidden number of channels is `scaled` by `width`."""
    return narrow(original, staying_at(original.narrowing, width))


def narrow_to_parameters(original: Original, parameters: int) -> tuple[nn.Module, float]:
    """Return the widest uniformly narrowed copy with at most `parameters` trained values, and its width.

    Raises:
        StudentError: even a copy with one channel a layer has more parameters.
    """
    width = width_for(original.narrowing, parameters)
    return narrow_to_width(original, width), width


def narrow_to_layers(original: Original, outputs: Mapping[str, int]) -> nn.Module | None:
    """Return a copy whose layers, by the names of their modules, have the given numbers of output channels.

    The result is None if the layers of one group of channels are to have different numbers. Layers that are not named
    follow from the others.
    """
    channels = original.channels
    staying: dict[int, int] = {}
    for use in channels.uses:
        wanted = outputs.get(original.layers.get(use.step, ""))
        groups = set(channels.group_of[use.ids.ravel()].tolist())
        if use.role != "out" or wanted is None or len(groups) != 1 or min(groups) < 0:
            continue
        (group,) = groups
        count, rest = divmod(wanted * channels.groups[group].cells.shape[1], use.ids.size)
        if rest or staying.setdefault(group, count) != count or count > channels.groups[group].cells.shape[1]:
            return None
    full = [group.cells.shape[1] for group in channels.groups]
    return narrow(original, [staying.get(group, size) for group, size in enumerate(full)])


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in network.parameters())


def _resized(network: Network, plan: Plan, thinner: Plan) -> nn.Module:
    """A copy of a network of the catalogue with the weights of a narrower plan."""
    twin = copy.deepcopy(network)
    for step, other in zip(plan.steps, thinner.steps, strict=True):
        for name, cut_name in zip(step.inputs, other.inputs, strict=True):
            if name in plan.constants:
                path, _, attribute = str(name).rpartition(".")
                _replace(twin.get_submodule(path), attribute, torch.tensor(thinner.constants[str(cut_name)]))
        if step.op in ("Conv", "Gemm", "BatchNormalization"):
            _settle(twin.get_submodule(step.name), other)
    return twin


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    old = getattr(module, name)
    setattr(module, name, nn.Parameter(tensor) if isinstance(old, nn.Parameter) else tensor)


def _settle(module: nn.Module, step: Step) -> None:
    """Set the sizes that the module of a step keeps beside its weights."""
    weight = cast("Tensor", module.weight)
    match module:
        case nn.Conv2d():
            module.groups = int(step.attributes["group"])
            module.out_channels, module.in_channels = len(weight), weight.shape[1] * module.groups
        case nn.Linear():
            module.out_features, module.in_features = weight.shape
        case nn.BatchNorm2d():
            module.num_features = len(weight)
