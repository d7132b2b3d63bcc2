"""GeneratorMethod: what every method with a persistent generator shares; a method adds the terms of its loss."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from dfkd_core import losses
from dfkd_core.methods.synthesizer import Synthesizer
from dfkd_core.networks import Generator
from dfkd_core.options import GeneratorOptions
from dfkd_core.streams import Streams
from dfkd_core.teachers.teacher import Teacher

OptionsT = TypeVar("OptionsT", bound=GeneratorOptions)

Terms = dict[str, tuple[float, Tensor]]
"""Name of a loss → its weight and its value, a scalar."""


class GeneratorMethod(Synthesizer, Generic[OptionsT]):
    """A generator with its optimiser. Noise (N, latent_dim) becomes images (N, C, H, W)."""

    def __init__(self, options: OptionsT, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        self._options = options
        self._teacher = teacher
        self._noise = streams["generator-noise"]
        self._weights = streams["generator-weights"]
        self._device = device
        self._calmed = 1.0
        self.restart()

    @abstractmethod
    def _terms(self, images: Tensor, student: nn.Module | None) -> Terms:
        """Every term of the loss of `images` with its weight; terms without weight are not computed."""

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
        first, second = options.betas
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=options.learning_rate, betas=(first, second))

    @property
    def learning_rate(self) -> float:
        """Of the next step, before the schedule's factor."""
        return self._options.learning_rate * self._calmed

    def synthesize(self, student: nn.Module | None, *, rate: float) -> dict[str, Tensor]:
        """One Adam step on the weighted sum of the terms."""
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
