"""NAYER. Tran, Le, Le, Harandi, Tran, Phung: NAYER: Noisy Layer Data Generation for Efficient and Effective Data-free
Knowledge Distillation, CVPR 2024, https://arxiv.org/abs/2310.00258.

The randomness is in a layer, not in the input: fixed embeddings of the classes pass through a linear layer, and every
few images get a new random layer. The published embeddings come from a language model. Here the embeddings are the rows
of the teacher's classifier, so that the method needs nothing but the teacher.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.methods.parts.image_method import ClassTargets, ImageMethod
from dfkd_core.methods.parts.image_parameters import Group, ImageParameters
from dfkd_core.methods.parts.image_starts import FreshGenerator, Start
from dfkd_core.methods.parts.image_terms import usual_terms
from dfkd_core.methods.parts.past_statistics import PastStatistics
from dfkd_core.networks.generators import Generator
from dfkd_core.networks.precision import Engine
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.nayer import NayerOptions
from dfkd_core.rng import Streams


class Nayer(ImageMethod):
    """Optimises a generator, which lives for several batches, and noisy layers before it, which live for one."""

    def __init__(self, options: NayerOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        draws = streams["images"]
        super().__init__(
            options,
            teacher,
            start=NoisyLayers(options, teacher, draws=draws, device=device),
            targets=ClassTargets(teacher.num_classes, draws=draws, device=device),
            terms=usual_terms(options),
            past=PastStatistics(options.bn_past),
            draws=draws,
            device=device,
        )


class NoisyLayers(Start):
    """Starts each batch with new noisy layers, and replaces the generator after `options.life` batches."""

    def __init__(
        self, options: NayerOptions, teacher: Teacher, *, draws: torch.Generator, device: torch.device
    ) -> None:
        self._options = options
        self._engine = teacher.engine
        self._draws = draws
        self._fresh = FreshGenerator(options, teacher, draws=draws, device=device)
        self._embeddings = class_embeddings(teacher).to(device)  # (num_classes, E)
        self.restart()

    def restart(self) -> None:
        """Replace the generator by one with new random weights."""
        self.network = self._fresh.new_network()
        self._age = 0  # number of batches that the generator has made

    def begin(self, targets: Tensor) -> ImageParameters:
        """Return the parameters of a batch: the generator, and new layers for the classes of `targets`."""
        if self._age >= self._options.life:
            self.restart()
        self._age += 1
        embeddings = self._embeddings[targets.argmax(dim=1)]  # (N, E)
        return NoisyLayerParameters(
            self._options,
            self.network,
            embeddings,
            run=len(self._embeddings),
            engine=self._engine,
            draws=self._draws,
        )

    def state(self) -> dict[str, Any]:
        """Return the generator and its age."""
        return {"network": copy.deepcopy(self.network.state_dict()), "age": self._age}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier generator."""
        self.network.load_state_dict(state["network"])
        self._age = state["age"]


class NoisyLayerParameters(ImageParameters):
    """Holds one linear layer for each `run` consecutive images, which have different classes; embeddings are (N, E)."""

    def __init__(
        self,
        options: NayerOptions,
        network: Generator,
        embeddings: Tensor,
        *,
        run: int,
        engine: Engine,
        draws: torch.Generator,
    ) -> None:
        self._options = options
        self._engine = engine
        self._network = network
        self._embeddings = embeddings
        self._run = min(run, len(embeddings))
        num_layers = -(-len(embeddings) // self._run)
        noise = torch.randn((num_layers, embeddings.shape[1], options.latent_dim), generator=draws)
        self.layers = noise.to(embeddings.device).requires_grad_()  # (num_layers, E, latent_dim)

    @property
    def groups(self) -> list[Group]:
        options = self._options
        return [(list(self._network.parameters()), options.learning_rate), ([self.layers], options.code_learning_rate)]

    @property
    def networks(self) -> list[nn.Module]:
        return [self._network]

    def images(self) -> Tensor:
        count, width = self._embeddings.shape
        spread = F.batch_norm(self._embeddings, None, None, training=True)  # (N, E)
        padded = F.pad(spread, (0, 0, 0, len(self.layers) * self._run - count))
        codes = padded.view(-1, self._run, width) @ self.layers  # (num_layers, run, latent_dim)
        images: Tensor = self._engine(self._network.train(), codes.flatten(0, 1)[:count])
        return images

    def state(self) -> dict[str, Any]:
        return {"layers": self.layers.detach()}  # the generator's weights are in the state of `NoisyLayers`

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        self.layers.copy_(state["layers"])


def class_embeddings(teacher: Teacher) -> Tensor:
    """Return one embedding for each class, (num_classes, E).

    The embeddings are the rows of the teacher's linear classifier. For a teacher without one they are unit vectors.
    """
    if isinstance(teacher.classifier, nn.Linear):
        return teacher.classifier.weight.detach().clone()
    return torch.eye(teacher.num_classes)
