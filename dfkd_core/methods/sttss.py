"""Soft targeted transfer set synthesis. Wang: Data-Free Knowledge Distillation with Soft Targeted Transfer Set
Synthesis, AAAI 2021, https://arxiv.org/abs/2104.04868.

The teacher's penultimate features are taken for normal, correlated as the weights that make them are similar. Random
points of that space become soft targets, and pixels are optimised until the teacher gives them.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.errors import RequirementError
from dfkd_core.methods.parts.generator_method import Terms
from dfkd_core.methods.parts.image_method import PixelMethod
from dfkd_core.networks import inversion_losses, losses
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.sttss import SttssOptions
from dfkd_core.rng import Streams


class Sttss(PixelMethod[SttssOptions]):
    """Pixels for targets sampled in the feature space."""

    def __init__(self, options: SttssOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        super().__init__(options, teacher, streams=streams, device=device)
        if not isinstance(teacher.classifier, nn.Linear):
            raise RequirementError("sttss needs a linear classifier", pointer="/distillation/method")
        self._classifier = teacher.classifier
        self._directions = F.normalize(feature_weights(teacher.network.modules(), self._classifier), dim=1)

    def _targets(self, count: int) -> Tensor:
        """What the classifier says of random features, at the temperature of the images: (N, num_classes)."""
        features = correlated_normal(
            self._directions, count, variance=self._options.variance, generator=self._draws, device=self._device
        )
        features = features.relu() if self._options.rectified else features
        return (F.linear(features, self._classifier.weight, self._classifier.bias) / self._options.temperature).softmax(
            dim=1
        )

    def _target_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return inversion_losses.soft_cross_entropy(logits, targets, temperature=self._options.temperature)

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._teacher.forward_with_features(images)

    def _own_terms(self, images: Tensor, features: Tensor | None) -> Terms:
        if not self._options.activation_weight or features is None:
            return {}
        return {"activation": (self._options.activation_weight, losses.activation(features))}


def feature_weights(modules: Iterable[nn.Module], classifier: nn.Linear) -> Tensor:
    """Weights (F, M) that make the penultimate feature (F,): of the last linear or convolutional layer before the
    classifier with as many outputs; where there is none, those with which the classifier reads it."""
    made = classifier.weight.T
    for module in modules:
        if module is classifier:
            break
        if isinstance(module, nn.Linear | nn.Conv2d) and len(module.weight) == classifier.in_features:
            made = module.weight.flatten(1)
    return made.detach()


def correlated_normal(
    directions: Tensor, count: int, *, variance: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    """`count` draws (N, F) of N(0, variance · directions directionsᵀ); directions (F, M) have rows of unit length.

    Drawn as directions times a standard normal, which is exact for a covariance of any rank.
    """
    noise = torch.randn((count, directions.shape[1]), generator=generator).to(device)
    features: Tensor = noise @ directions.T.to(device)
    return features * math.sqrt(variance)
