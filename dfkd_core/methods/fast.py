"""FastDFKD. Fang, Mo, Wang, Song, Bei, Zhang, Song: Up to 100x Faster Data-free Knowledge Distillation, AAAI 2022,
https://arxiv.org/abs/2112.15253.

The generator's start is learnt too: the sum of all gradients on the way to a batch moves it (first-order MAML), so that
the next batch needs a few steps only.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.methods.parts.canvas import Canvas, RedrawnCanvas, redrawn_generator
from dfkd_core.methods.parts.image_method import RedrawnMethod
from dfkd_core.networks.generators import Generator
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.fast import FastOptions
from dfkd_core.rng import Streams


class Fast(RedrawnMethod[FastOptions]):
    """A generator for every batch that starts from one and the same, which is learnt."""

    def __init__(self, options: FastOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        super().__init__(options, teacher, streams=streams, device=device)
        self._new_start()

    def _new_start(self) -> None:
        space, options = self._teacher.input_space, self._options
        self._start = redrawn_generator(options, space, generator=self._draws).to(self._device)
        first, second = options.betas
        self._meta = torch.optim.Adam(self._start.parameters(), lr=options.meta_learning_rate, betas=(first, second))

    def _canvas(self) -> Canvas:
        self._meta.zero_grad(set_to_none=False)
        space, engine = self._teacher.input_space, self._teacher.engine
        return AdaptedCanvas(
            self._options, self._start, space, engine=engine, generator=self._draws, device=self._device
        )

    def _finish(self, images: Tensor, targets: Tensor) -> None:
        """Move the start along the gradients that the batch's canvas left at it."""
        super()._finish(images, targets)
        self._meta.step()
        self._meta.zero_grad(set_to_none=True)

    def restart(self) -> None:
        """A start with other random weights."""
        super().restart()
        self._new_start()

    def state(self) -> dict[str, Any]:
        """With the start and its optimiser."""
        return {
            **super().state(),
            "start": copy.deepcopy(self._start.state_dict()),
            "meta": copy.deepcopy(self._meta.state_dict()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with an earlier start."""
        super().restore(state)
        self._start.load_state_dict(state["start"])
        self._meta.load_state_dict(copy.deepcopy(state["meta"]))


class AdaptedCanvas(RedrawnCanvas):
    """A copy of the start with new codes; it adds every step's gradient to the start's."""

    def __init__(self, options: FastOptions, start: Generator, space: Any, **draws: Any) -> None:
        super().__init__(options, space, **draws)
        self._start = start
        self.network.load_state_dict(start.state_dict())

    @torch.no_grad()
    def project(self) -> None:
        for learnt, mine in zip(self._start.parameters(), self.network.parameters(), strict=True):
            if mine.grad is not None:
                learnt.grad = mine.grad.clone() if learnt.grad is None else learnt.grad + mine.grad
