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
from dfkd_core.methods.parts.image_method import ImageMethod
from dfkd_core.methods.parts.image_starts import PixelStart
from dfkd_core.methods.parts.image_terms import Step, Term, usual_terms
from dfkd_core.networks import inversion_losses, losses
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.sttss import SttssOptions
from dfkd_core.rng import Streams


class Sttss(ImageMethod):
    """Pixels for targets sampled in the feature space."""

    def __init__(self, options: SttssOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        draws = streams["images"]

        def tempered(step: Step) -> Tensor:
            """Cross-entropy with the soft targets at their temperature."""
            return inversion_losses.soft_cross_entropy(step.logits, step.targets, temperature=options.temperature)

        def activation(step: Step) -> Tensor | None:
            """Minus the mean |penultimate feature|."""
            return None if step.features is None else losses.activation(step.features)

        own = [Term("activation", options.activation_weight, activation)] if options.activation_weight else []
        super().__init__(
            options,
            teacher,
            start=PixelStart(options, teacher.input_space, draws=draws, device=device),
            targets=FeatureTargets(options, teacher, draws=draws, device=device),
            terms=[*usual_terms(options, target=tempered), *own],
            reader=teacher.forward_with_features,
            draws=draws,
            device=device,
        )


class FeatureTargets:
    """What the teacher's classifier says of random features, at the temperature of the images."""

    def __init__(
        self, options: SttssOptions, teacher: Teacher, *, draws: torch.Generator, device: torch.device
    ) -> None:
        if not isinstance(teacher.classifier, nn.Linear):
            raise RequirementError("sttss needs a linear classifier", pointer="/distillation/method")
        self._options = options
        self._classifier = teacher.classifier
        self._directions = F.normalize(feature_weights(teacher.network.modules(), self._classifier), dim=1)
        self._draws = draws
        self._device = device

    def __call__(self, count: int) -> Tensor:
        """Probabilities (count, num_classes)."""
        options, classifier = self._options, self._classifier
        features = correlated_normal(
            self._directions, count, variance=options.variance, generator=self._draws, device=self._device
        )  # (count, F)
        features = features.relu() if options.rectified else features
        return (F.linear(features, classifier.weight, classifier.bias) / options.temperature).softmax(dim=1)


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
