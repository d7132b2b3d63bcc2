"""FastDFKD. Fang, Mo, Wang, Song, Bei, Zhang, Song: Up to 100x Faster Data-free Knowledge Distillation, AAAI 2022,
https://arxiv.org/abs/2112.15253.

The start of the generator is learnt too. After each batch, the sum of the batch's gradients updates the start
(first-order MAML), so that the next batch needs only a few steps.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.methods.parts.image_method import ClassTargets, ImageMethod
from dfkd_core.methods.parts.image_parameters import GeneratorParameters, Group, ImageParameters
from dfkd_core.methods.parts.image_starts import FreshGenerator, Start
from dfkd_core.methods.parts.image_terms import usual_terms
from dfkd_core.methods.parts.past_statistics import PastStatistics
from dfkd_core.networks.generators import Generator
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.fast import FastOptions
from dfkd_core.rng import Streams


class Fast(ImageMethod):
    """Optimises a generator for each batch; all of them start from the same learnt weights."""

    def __init__(self, options: FastOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        draws = streams["images"]
        super().__init__(
            options,
            teacher,
            start=LearntGenerator(options, teacher, draws=draws, device=device),
            targets=ClassTargets(teacher.num_classes, draws=draws, device=device),
            terms=usual_terms(options),
            past=PastStatistics(options.bn_past),
            draws=draws,
            device=device,
        )


class LearntGenerator(Start):
    """Starts each batch from a copy of `network` with new codes, and updates `network` with the batch's gradients."""

    def __init__(self, options: FastOptions, teacher: Teacher, *, draws: torch.Generator, device: torch.device) -> None:
        self._options = options
        self._fresh = FreshGenerator(options, teacher, draws=draws, device=device)
        self.restart()

    def restart(self) -> None:
        """Start again with other random weights."""
        first, second = self._options.betas
        rate = self._options.meta_learning_rate
        self.network = self._fresh.new_network()
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=rate, betas=(first, second))

    def begin(self, targets: Tensor) -> ImageParameters:
        """Return the parameters of a batch: a copy of the start, and new codes."""
        self._optimizer.zero_grad(set_to_none=False)
        return AdaptedParameters(self._fresh.begin(targets), self.network)

    def finish(self, images: Tensor, targets: Tensor) -> None:
        """Update the start with the gradients that the batch has accumulated."""
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Return the start and its optimiser."""
        start, meta = self.network.state_dict(), self._optimizer.state_dict()
        return {"start": copy.deepcopy(start), "meta": copy.deepcopy(meta)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier start."""
        self.network.load_state_dict(state["start"])
        self._optimizer.load_state_dict(copy.deepcopy(state["meta"]))  # Adam would share the tensors


class AdaptedParameters(ImageParameters):
    """The copy of `start` that one batch optimises; the gradient of each step is added to the gradient of `start`."""

    def __init__(self, copied: GeneratorParameters, start: Generator) -> None:
        self._copied = copied
        self._start = start
        copied.network.load_state_dict(start.state_dict())

    @property
    def groups(self) -> list[Group]:
        return self._copied.groups

    @property
    def networks(self) -> list[nn.Module]:
        return self._copied.networks

    def images(self) -> Tensor:
        return self._copied.images()

    @torch.no_grad()
    def project(self) -> None:
        for learnt, mine in zip(self._start.parameters(), self._copied.network.parameters(), strict=True):
            if mine.grad is not None:
                learnt.grad = mine.grad.clone() if learnt.grad is None else learnt.grad + mine.grad

    def state(self) -> dict[str, Any]:
        gradients = [learnt.grad for learnt in self._start.parameters()]
        return {**self._copied.state(), "gradients": gradients}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._copied.restore(state)
        for learnt, gradient in zip(self._start.parameters(), state["gradients"], strict=True):
            learnt.grad = None if gradient is None else gradient.to(learnt.device, copy=True)
