"""Soft targeted transfer set synthesis. Wang: Data-Free Knowledge Distillation with Soft Targeted Transfer Set
Synthesis, AAAI 2021, https://arxiv.org/abs/2104.04868.

The method models the teacher's penultimate features as normal; the similarity of the weights that compute two features
gives their correlation. Random points of the feature space become soft targets, and pixels are optimised until the
teacher's outputs equal the targets.
"""

import math
from collections.abc import Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.errors import RequirementError
from dfkd_core.methods.parts.image_method import ImageMethod
from dfkd_core.methods.parts.image_starts import PixelStart
from dfkd_core.methods.parts.image_terms import Step, Term, cross_entropy, usual_terms
from dfkd_core.networks import losses
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.sttss import SttssOptions
from dfkd_core.rng import Streams


class Sttss(ImageMethod):
    """Optimises pixels towards targets that are sampled in the feature space."""

    def __init__(self, options: SttssOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        draws = streams["images"]

        def activation(step: Step) -> Tensor | None:
            """Return minus the mean |penultimate feature|, or None if the features were not read."""
            return None if step.features is None else losses.activation(step.features)

        own = [Term("activation", options.activation_weight, activation)] if options.activation_weight else []
        super().__init__(
            options,
            teacher,
            start=PixelStart(options, teacher.input_space, draws=draws, device=device),
            targets=FeatureTargets(options, teacher, draws=draws, device=device),
            terms=[*usual_terms(options, target=cross_entropy(temperature=options.temperature)), *own],
            reader=partial(teacher.observe, features="penultimate"),
            draws=draws,
            device=device,
        )


class FeatureTargets:
    """Draws soft targets: the softmax of the teacher's classifier on random features, at `options.temperature`."""

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
        """Draw probabilities (count, num_classes)."""
        options, classifier = self._options, self._classifier
        features = correlated_normal(
            self._directions, count, variance=options.variance, generator=self._draws, device=self._device
        )  # (count, F)
        features = features.relu() if options.rectified else features
        return (F.linear(features, classifier.weight, classifier.bias) / options.temperature).softmax(dim=1)


def feature_weights(modules: Iterable[nn.Module], classifier: nn.Linear) -> Tensor:
    """Return the weights (F, M) that compute the penultimate feature (F,).

    They belong to the last linear or convolutional layer before the classifier that has F outputs. Without such a
    layer, the result is the transposed weight of the classifier, (F, num_classes).
    """
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
    """Draw `count` rows (N, F) from N(0, variance · directions directionsᵀ); directions (F, M) have unit rows.

    The rows are directions times standard normal noise, which is exact for a covariance of any rank.
    """
    noise = torch.randn((count, directions.shape[1]), generator=generator).to(device)
    features: Tensor = noise @ directions.T.to(device)
    return features * math.sqrt(variance)
