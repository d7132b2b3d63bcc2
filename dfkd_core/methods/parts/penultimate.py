"""Penultimate features of a student, for methods whose feedback is about what the student knows, not what it says."""

from torch import Tensor, nn

from dfkd_core.errors import RequirementError
from dfkd_core.networks.hooks import forward_with_input_of


def classifier_of(student: nn.Module) -> nn.Linear:
    """The last linear layer. RequirementError for a student that does not name one."""
    classifier = getattr(student, "classifier", None)
    if not isinstance(classifier, nn.Linear):
        raise RequirementError(
            "the method reads the input of the student's last linear layer, and this student has none",
            hint="Choose a student of the catalogue, or another method: GET /menu.",
            pointer="/distillation/method",
        )
    return classifier


def student_features(student: nn.Module, images: Tensor) -> Tensor:
    """What the student's classifier reads when it sees images (N, C, H, W): (N, F)."""
    return forward_with_input_of(classifier_of(student), student, images)[1]
