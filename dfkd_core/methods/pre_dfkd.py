"""PRE-DFKD's novel generator. Binici, Aggarwal, Pham, Leman, Mitra: Robust and Resource-Efficient Data-Free Knowledge
Distillation by Generative Pseudo Replay, AAAI 2022, https://arxiv.org/abs/2201.03019.

A generator learns to make images that the teacher is sure of, that are balanced over its classes, that excite its
features, that fit its BatchNorm statistics where it has them, and on which the student disagrees with it.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core import losses
from dfkd_core.batchnorm import BatchNormStatistics
from dfkd_core.config import PreDfkdOptions
from dfkd_core.methods.synthesizer import Synthesizer
from dfkd_core.networks import Generator
from dfkd_core.streams import Streams
from dfkd_core.teachers.teacher import Teacher


class PreDfkd(Synthesizer):
    """The generator with its optimiser."""

    def __init__(self, options: PreDfkdOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        self._options = options
        self._teacher = teacher
        self._noise = streams["generator-noise"]
        self._weights = streams["generator-weights"]
        self._device = device
        self._calmed = 1.0
        self.restart()

    def restart(self) -> None:
        """Random weights and a fresh optimiser; images of a kind that was not there before."""
        options, space = self._options, self._teacher.input_space
        self.network = Generator(
            space.shape,
            latent_dim=options.latent_dim,
            width=options.width,
            batchnorm_eps=options.batchnorm_eps,
            spectral_norm=options.spectral_norm,
            output=options.output,
            low=space.low,
            high=space.high,
            generator=self._weights,
        ).to(self._device)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=options.learning_rate)

    @property
    def learning_rate(self) -> float:
        """Of the next step, before the schedule's factor."""
        return self._options.learning_rate * self._calmed

    def synthesize(self, student: nn.Module | None, *, rate: float) -> dict[str, Tensor]:
        """One Adam step on the generator loss (methods-replay §2.3)."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate * (rate if self._options.decay == "cosine" else 1.0)
        images = self._images(self._options.batch_size, self._noise)
        terms = self._terms(images, student)
        self._optimizer.zero_grad(set_to_none=True)
        parameters = list(self.network.parameters())
        torch.autograd.backward(losses.weighted_sum(terms), inputs=parameters)
        if self._options.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, self._options.gradient_clip)
        self._optimizer.step()
        return {name: value.detach() for name, (_weight, value) in terms.items()}

    def _images(self, count: int, generator: torch.Generator) -> Tensor:
        z = torch.randn((count, self.network.latent_dim), generator=generator).to(self._device)
        images: Tensor = self.network.train()(z)  # batch statistics, as in the published code
        return images

    def _terms(self, images: Tensor, student: nn.Module | None) -> dict[str, tuple[float, Tensor]]:
        """Every term of the loss with its weight; terms without weight are not computed."""
        options, teacher = self._options, self._teacher
        features = None
        with BatchNormStatistics(teacher.network) as statistics:
            if options.activation_weight and "features" in teacher.offers:
                logits, features = teacher.forward_with_features(images)
            else:
                logits = teacher(images)
            terms = {
                "onehot": (options.onehot_weight, losses.onehot(logits)),
                "balance": (options.balance_weight, losses.class_balance(logits)),
            }
            if options.bn_weight and "batchnorm" in teacher.offers:
                terms["bn"] = (options.bn_weight, statistics.distance())
        if features is not None:
            terms["activation"] = (options.activation_weight, losses.activation(features))
        if options.smoothness_weight:
            terms["smoothness"] = (options.smoothness_weight, losses.total_variation(images))
        if student is not None and options.adv_weight:
            terms["adv"] = (options.adv_weight, self._adversarial(images, logits, student))
        return terms

    def _adversarial(self, images: Tensor, teacher_logits: Tensor, student: nn.Module) -> Tensor:
        """1 − disagreement, not pushed beyond `adv_limit`. The published form has a detached teacher."""
        options = self._options
        with evaluating(student):
            student_logits = student(images)
        if options.disagreement == "pseudo_js":
            divergence = losses.pseudo_js(teacher_logits.detach(), student_logits, temperature=options.temperature)
        else:
            divergence = losses.js_divergence(teacher_logits, student_logits, temperature=options.temperature)
        return 1 - divergence.clamp(0, options.adv_limit)

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Images of the generator as it is now, in batches of its training size."""
        size = self._options.batch_size
        with torch.no_grad():
            batches = [self._images(size, generator) for _ in range(-(-count // size))]
        return torch.cat(batches)[:count]

    def calm(self) -> None:
        """Halve the learning rate for the rest of the run."""
        self._calmed /= 2

    def state(self) -> dict[str, Any]:
        """Network, optimiser and how often the rate was halved."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "calmed": self._calmed,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue an earlier generator."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # it would share the tensors
        self._calmed = state["calmed"]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside, the former mode afterwards: BatchNorm buffers do not move."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
