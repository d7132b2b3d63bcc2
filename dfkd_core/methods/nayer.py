"""NAYER. Tran, Le, Le, Harandi, Tran, Phung: NAYER: Noisy Layer Data Generation for Efficient and Effective Data-free
Knowledge Distillation, CVPR 2024, https://arxiv.org/abs/2310.00258.

The randomness is in a layer, not in the input: fixed embeddings of the classes go through a linear layer that is drawn
anew for every few images. The published embeddings are a language model's; here they are the rows of the teacher's
classifier, so that nothing but the teacher is asked.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.methods.parts.canvas import Canvas, redrawn_generator
from dfkd_core.methods.parts.image_method import RedrawnMethod
from dfkd_core.networks.generators import Generator
from dfkd_core.networks.precision import Engine
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.nayer import NayerOptions
from dfkd_core.rng import Streams


class Nayer(RedrawnMethod[NayerOptions]):
    """A generator that lives for some batches, behind noisy layers that live for one."""

    def __init__(self, options: NayerOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        super().__init__(options, teacher, streams=streams, device=device)
        self._embeddings = class_embeddings(teacher).to(device)
        self._classes_now = torch.zeros(0, dtype=torch.int64)
        self._new_network()

    def _new_network(self) -> None:
        space = self._teacher.input_space
        self._network = redrawn_generator(self._options, space, generator=self._draws).to(self._device)
        self._age = 0

    def _targets(self, count: int) -> Tensor:
        """Classes, and with them the embeddings of the next canvas."""
        targets = super()._targets(count)
        self._classes_now = targets.argmax(dim=1)
        return targets

    def _canvas(self) -> Canvas:
        if self._age >= self._options.life:
            self._new_network()
        self._age += 1
        embeddings = self._embeddings[self._classes_now]
        return NoisyLayerCanvas(
            self._options,
            self._network,
            embeddings,
            len(self._embeddings),
            engine=self._teacher.engine,
            generator=self._draws,
        )

    def restart(self) -> None:
        """A generator with other random weights."""
        super().restart()
        self._new_network()

    def state(self) -> dict[str, Any]:
        """With the generator and its age."""
        return {**super().state(), "network": copy.deepcopy(self._network.state_dict()), "age": self._age}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with an earlier generator."""
        super().restore(state)
        self._network.load_state_dict(state["network"])
        self._age = state["age"]


class NoisyLayerCanvas(Canvas):
    """One linear layer for each run of images of different classes; embeddings are (N, E)."""

    def __init__(
        self,
        options: NayerOptions,
        network: Generator,
        embeddings: Tensor,
        run: int,
        *,
        engine: Engine,
        generator: torch.Generator,
    ) -> None:
        self._options = options
        self._engine = engine
        self._network = network
        self._embeddings = embeddings
        self._run = min(run, len(embeddings))
        layers = -(-len(embeddings) // self._run)
        noise = torch.randn((layers, embeddings.shape[1], options.latent_dim), generator=generator)
        self.layers = noise.to(embeddings.device).requires_grad_()

    @property
    def unknowns(self) -> list[tuple[list[Tensor], float]]:
        options = self._options
        return [(list(self._network.parameters()), options.learning_rate), ([self.layers], options.code_learning_rate)]

    def images(self) -> Tensor:
        count, width = self._embeddings.shape
        spread = F.batch_norm(self._embeddings, None, None, training=True)
        padded = F.pad(spread, (0, 0, 0, len(self.layers) * self._run - count))
        codes = padded.view(-1, self._run, width) @ self.layers  # (layers, images of a layer, latent_dim)
        images: Tensor = self._engine(self._network.train(), codes.flatten(0, 1)[:count])
        return images


def class_embeddings(teacher: Teacher) -> Tensor:
    """One row for each class, (num_classes, E): how the classifier reads the class; without one, unit vectors."""
    if isinstance(teacher.classifier, nn.Linear):
        return teacher.classifier.weight.detach().clone()
    return torch.eye(teacher.num_classes)
