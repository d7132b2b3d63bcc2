"""WorkerSpeed: how fast a worker computes, as its short benchmark measured it (torch-free)."""

import re
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

SPEED_VERSION = 6
"""Rises with every change of what the benchmark measures: a worker measures again, and older measurements are not read.
"""


class Pass(StrEnum):
    """Work that reads and writes values without multiplying matrices."""

    ACTIVATION = "activation"  # an activation function, a sum
    ACTIVATION_GRADIENT = "activation-gradient"
    NORM = "norm"  # a batch normalisation in training mode
    NORM_GRADIENT = "norm-gradient"
    FROZEN_NORM = "frozen-norm"  # a batch normalisation in evaluation mode
    FROZEN_NORM_GRADIENT = "frozen-norm-gradient"  # of its input
    MOMENTS = "moments"  # mean and variance of each channel, with their gradient
    DRAWN = "drawn"  # procedural images
    AUGMENTED = "augmented"  # the augmentation of a student's batch
    GATHERED = "gathered"  # copies of stored 8-bit images into a batch
    ADAM = "adam"  # a step of Adam and of the running average, by trained value


class KernelSpeed(BaseModel):
    """Multiply-adds a second of one kernel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    forward: PositiveFloat
    input_gradient: PositiveFloat
    weight_gradient: PositiveFloat


class WorkerSpeed(BaseModel):
    """What a benchmark of a few seconds measured of one worker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = SPEED_VERSION
    device: str = Field(description="cpu, or the name of the GPU.")
    threads: int = Field(description="Intra-op threads.")
    build: str = Field(description="PyTorch's version and the instruction set that it uses.")
    kernels: dict[str, KernelSpeed] = Field(description="By name, such as conv-64; see dfkd_core.architectures.cost.")
    passes: dict[Pass, PositiveFloat] = Field(description="Values a second.")
    call_seconds: PositiveFloat = Field(description="What one operation costs forward, however small it is.")
    call_gradient_seconds: PositiveFloat = Field(description="What its gradient costs.")
    bf16_factor: PositiveFloat = Field(description="How many times faster multiply-adds are in bfloat16.")
    bf16_tries: tuple[PositiveFloat, ...] = Field(
        (),
        description="How many times faster a student's update was in bfloat16, try by try; they decide what the "
        "precision auto becomes. Empty where an earlier version measured.",
    )
    start_seconds: PositiveFloat = Field(description="Time until a runner has loaded its libraries.")
    export_seconds: PositiveFloat = Field(description="Time of a first, small export.")
    base_bytes: int = Field(ge=0, description="Memory of a runner whose teacher and student are tiny.")
    device_bytes: int | None = Field(None, description="Memory of the GPU; null on a CPU.")

    @property
    def worker_class(self) -> str:
        """A stable name for workers of this kind, such as cpu-2 or gpu-nvidia-h200."""
        if self.device == "cpu":
            return f"cpu-{self.threads}"
        return f"gpu-{re.sub(r'[^a-z0-9]+', '-', self.device.lower()).strip('-')}"[:64]
