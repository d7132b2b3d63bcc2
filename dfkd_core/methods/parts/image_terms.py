"""Terms: what the loss of a batch of images is made of, and the terms that most methods share."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from dfkd_core.networks import inversion_losses, losses
from dfkd_core.options.images import ImageOptions


@dataclass(frozen=True, slots=True)
class Step:
    """The values from which the terms of one optimisation step are computed. Gradients reach the images."""

    images: Tensor  # (N, C, H, W), as teacher and student see them: moved, sometimes mirrored
    targets: Tensor  # (N, num_classes), probabilities that the teacher shall give
    logits: Tensor  # (N, num_classes), the teacher's
    features: Tensor | None  # (N, F), what the method's reader reads beside the logits
    bn_distance: Tensor | None  # scalar; None if it has no weight or the teacher has no statistics
    student: nn.Module | None  # in eval mode; None if its feedback is not wanted

    def student_logits(self) -> Tensor:
        """Return the student's logits (N, num_classes) for the images."""
        assert self.student is not None  # terms of the student are left out without one
        logits: Tensor = self.student(self.images)
        return logits


Loss = Callable[[Step], Tensor | None]
"""Computes a scalar from a step, or None if the term does not apply to the step."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the loss."""

    name: str  # the name in the progress of a run
    weight: float
    loss: Loss
    of_student: bool = False  # if True, the term needs a student, and a roll-back halves its weight


def usual_terms(options: ImageOptions, *, target: Loss | None = None, feedback: Loss | None = None) -> list[Term]:
    """Return the terms target, BatchNorm statistics, smoothness, norm and feedback; terms of weight 0 are left out.

    The target term is always present. The default `target` is the cross-entropy with the batch's targets, and the
    default `feedback` is the feedback of CMI.
    """
    terms = [
        Term("bn", options.bn_weight, lambda step: step.bn_distance),
        Term("smoothness", options.smoothness_weight, smoothness_loss(options)),
        Term("l2", options.l2_weight, lambda step: inversion_losses.image_norm(step.images)),
        Term("adv", options.adv_weight, feedback or agreeing_feedback(options.adv_limit), of_student=True),
    ]
    return [Term("target", options.target_weight, target or cross_entropy()), *(term for term in terms if term.weight)]


def cross_entropy(*, temperature: float = 1.0) -> Loss:
    """Return the cross-entropy of the teacher's answers at this temperature with the targets."""
    return lambda step: inversion_losses.soft_cross_entropy(step.logits, step.targets, temperature=temperature)


def smoothness_loss(options: ImageOptions) -> Loss:
    """Return the total variation, or DeepInversion's norm of the variation, as `options.smoothness` says."""
    if getattr(options, "smoothness", "mean") == "norm":
        return lambda step: inversion_losses.variation_norm(step.images)
    return lambda step: losses.total_variation(step.images)


def agreeing_feedback(limit: float) -> Loss:
    """Return the feedback of CMI (2105.08584): it rewards images with the same class but different probabilities."""
    return lambda step: inversion_losses.agreeing_kl(step.logits, step.student_logits(), limit=limit)
