"""How the networks of a run compute (torch-free): precision, compiler, and how many images at a time."""

from typing import Annotated, Final, Literal

from pydantic import Field

from dfkd_core.options.field_types import Frozen

LEAST_TRAINED = 2  # images that a BatchNorm in training mode needs

Precision = Literal["fp32", "bf16"]

AUTO_PRECISION: Final = "auto"
"""The precision that the worker chooses which runs the job."""


class Compute(Frozen):
    """How the networks compute. Weights, losses, labels, averages, the files and the final figures are fp32 anyway."""

    precision: Literal["auto", "fp32", "bf16"] = Field(
        AUTO_PRECISION,
        description="bf16: convolutions and matrix products of teacher, student and generator take bfloat16; faster "
        "where the hardware knows it. auto: bf16 on a worker that measured, at its start, that it is at least 1.3 "
        "times faster, and else fp32; a run that goes on from a checkpoint keeps the precision of the checkpoint.",
    )
    compile: bool = Field(
        False,
        description="Compile the networks with torch.compile first, which takes minutes; for long runs. Needs a C++ "
        "compiler on a CPU, Triton and a C compiler on CUDA.",
    )
    micro_batch: Annotated[int, Field(ge=1, le=8192)] | None = Field(
        None,
        description="Images of a student update that are computed at a time; their gradients add up. Null: as many as "
        "the service's memory for activations allows.",
    )
    chunk: Annotated[int, Field(ge=1, le=8192)] | None = Field(
        None,
        description="Images that are optimised together, and through which gradients reach the teacher at a time. "
        "Null: as above.",
    )
    label_chunk: Annotated[int, Field(ge=1, le=8192)] | None = Field(
        None, description="Images that are labelled or evaluated at a time, without gradients. Null: as above."
    )

    def computed_in(self, precision: Precision) -> "Compute":
        """Return the same with this precision if it is left open, and unchanged otherwise."""
        return self.model_copy(update={"precision": precision}) if self.precision == AUTO_PRECISION else self

    def at_a_time(self, most: int) -> int:
        """Return how many images, at most `most`, are computed at a time without gradients."""
        return min(most, self.label_chunk or most)
