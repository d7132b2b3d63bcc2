"""Penultimate features of a student, for methods whose feedback reads the student's features, not its logits."""

from torch import Tensor, nn

from dfkd_core.errors import RequirementError
from dfkd_core.networks.hooks import forward_with_input_of


def classifier_of(student: nn.Module) -> nn.Linear:
    """Return the student's last linear layer.

    Raises:
        RequirementError: the student names no linear `classifier`.
    """
    classifier = getattr(student, "classifier", None)
    if not isinstance(classifier, nn.Linear):
        raise RequirementError(
            "the method reads the input of the student's last linear layer, and this student has none",
            hint="Choose a student of the catalogue (GET /menu lists the students), or another method.",
            pointer="/distillation/method",
        )
    return classifier


def student_features(student: nn.Module, images: Tensor) -> Tensor:
    """Return the input (N, F) of the student's classifier for images (N, C, H, W)."""
    return forward_with_input_of(classifier_of(student), student, images)[1]
