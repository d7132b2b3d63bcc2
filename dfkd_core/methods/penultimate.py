"""Penultimate features of a student, for methods whose feedback is about what the student knows, not what it says."""

from torch import Tensor, nn

from dfkd_core.errors import RequirementError


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
    seen: list[Tensor] = []
    handle = classifier_of(student).register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        student(images)
    finally:
        handle.remove()
    return seen[0].flatten(1)
