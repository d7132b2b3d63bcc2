"""RDSKD. Han, Park, Wang, Liu: Robustness and Diversity Seeking Data-Free Knowledge Distillation, ICASSP 2021,
https://arxiv.org/abs/2011.03749.

The generator learns without the student. Its loss has three terms: confidence, class balance, and the diversity of
images relative to the teacher's outputs. Confidence and balance enter as the exponential of their increase over a
reference. The generator is frozen while the student learns.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.methods.parts.generator_method import GeneratorMethod, Terms
from dfkd_core.networks import losses
from dfkd_core.networks.recomputation import in_chunks
from dfkd_core.options.methods.rdskd import RdskdOptions


class Rdskd(GeneratorMethod[RdskdOptions]):
    """Trains the generator with RDSKD's loss, and keeps the references of the current epoch."""

    def restart(self) -> None:
        """Start again with random weights, a new optimiser, and references of 0, as in the released code."""
        super().restart()
        self._updates = 0
        self._references = {"onehot": 0.0, "balance": 0.0}

    def _terms(self, images: Tensor, student: nn.Module | None, *, inputs: tuple[Tensor, ...]) -> Terms:
        options = self._options
        logits = self._teacher.observe(images).logits
        values = {"onehot": losses.onehot(logits), "balance": losses.negative_entropy(logits)}
        diversity = losses.diversity_ratio(images, logits, per_pair=options.diversity == "pair")
        terms = {
            "onehot": (options.onehot_weight, self._growth("onehot", values["onehot"])),
            "balance": (options.balance_weight, self._growth("balance", values["balance"])),
            "diversity": (options.diversity_weight, diversity),
        }
        self._seen = {name: value.detach() for name, value in values.items()}
        return terms

    def _growth(self, name: str, value: Tensor) -> Tensor:
        return torch.exp(value - self._references[name]) if self._options.increments else value

    def _step(self, loss: Tensor) -> None:
        """Take the step; at one update of each epoch take this update's losses as references."""
        super()._step(loss)
        if self._updates % self._options.epoch_updates == self._options.reference_update:
            self._references = {name: float(value) for name, value in self._seen.items()}
        self._updates += 1

    def _images(self, inputs: tuple[Tensor, ...]) -> Tensor:
        running = self._options.sampling == "running" and not torch.is_grad_enabled()  # only sampling runs without them
        network = self.network.train(not running)
        images: Tensor = in_chunks(network, network, *inputs, most=self._teacher.engine.compute.chunk)
        return images

    def state(self) -> dict[str, Any]:
        """Return the state of every generator method, the number of updates and the references."""
        return {**super().state(), "updates": self._updates, "references": dict(self._references)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier generator."""
        super().restore(state)
        self._updates, self._references = state["updates"], dict(state["references"])
