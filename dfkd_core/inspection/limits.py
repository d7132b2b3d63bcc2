"""The cost of a teacher, computed from its inspection, and the limits that a deployment sets on it (torch-free)."""

from dataclasses import dataclass

from dfkd_core.errors import TeacherInvalid
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.planning.micro_batches import MOST
from dfkd_core.spec.config import DistillSpec


@dataclass(frozen=True, slots=True)
class CostLimits:
    """The largest cost that this deployment accepts."""

    macs: int  # multiply-adds for one image
    activation_bytes: int  # bytes of all values that the teacher computes for one batch


def check_cost(inspection: Inspection, limits: CostLimits, *, spec: DistillSpec | None = None) -> None:
    """Compare the cost of one image, or of the largest batch of `spec`, with the limits.

    Raises:
        TeacherInvalid: the teacher costs more.
    """
    if inspection.macs is not None and inspection.macs > limits.macs:
        raise TeacherInvalid(
            f"the teacher takes {inspection.macs:,} multiply-adds for one image; {limits.macs:,} are allowed here",
            hint="Export the network for smaller images, or a smaller network.",
        )
    images, pointer = (1, None) if spec is None else _largest_batch(spec)
    needed = (inspection.activation_bytes or 0) * images
    if needed > limits.activation_bytes:
        alone = (inspection.activation_bytes or 0) > limits.activation_bytes
        raise TeacherInvalid(
            f"the teacher computes {needed:,} bytes for a batch of {images}; "
            f"{limits.activation_bytes:,} are allowed here",
            hint="Export the network for smaller images." if alone or pointer is None else "Choose a smaller batch.",
            pointer=None if alone else pointer,
        )


def _largest_batch(spec: DistillSpec) -> tuple[int, str]:
    """Return the largest batch of images that the teacher sees, and the JSON pointer of the field that sets it."""
    config, most = spec.distillation, spec.distillation.compute.chunk or MOST
    batches = [(config.training.batch_size, "/distillation/training/batch_size")]
    batches.append((config.method_options.batch_size, "/distillation/method_options/batch_size"))
    return max((min(size, most), pointer) for size, pointer in batches)
