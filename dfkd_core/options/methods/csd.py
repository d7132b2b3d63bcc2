"""Options and published settings of `csd` (torch-free)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.base import Shape
from dfkd_core.options.field_types import Positive, Weight
from dfkd_core.options.images import BANK, PUBLISHED_REDRAWN, RedrawnOptions
from dfkd_core.options.passes import Direction, Network, Passes, passes
from dfkd_core.options.published import Presets, merged

PAPER: dict[str, Any] = merged(
    PUBLISHED_REDRAWN,
    {
        "budget": {"steps": 100 * 2000},
        "memory_options": {"capacity": 100_000},
        "training": {
            "batch_size": 128,
            "updates_per_round": 2000,
            "hard_weight": 1.0,
        },
        "method_options": {
            "latent_dim": 256,
            "batch_size": 200,
            "warmup_rounds": 400,
            "steps": 200,  # 500 in the warm-up
            "learning_rate": 1e-3,
            "code_learning_rate": 1e-3,
            "target_weight": 1.0,
            "bn_weight": 1.0,
            "adv_weight": 10.0,
            "transforms": "rotations",
            "probe_steps": 2000,
            "probe_batch_size": 128,
            "probe_learning_rate": 0.1,
            "probe_capacity": 100_000,
        },
    },
)
"""The settings of the released script for CIFAR-10, without its feature distillation (weight 30, a default there)."""


class CsdOptions(RedrawnOptions):
    """Customizing synthetic data (Luo et al., ICME 2023): images at which a probe on the student's features fails."""

    presets: ClassVar[Presets] = {"default": BANK, "paper": PAPER}

    name: Literal["csd"] = Field("csd", exclude=True)
    adv_weight: Weight = Field(1.0, description="Weight of the probe's failure, after the warm-up.")
    adv_limit: Positive = Field(
        10.0, description="What one image's failure counts at most; unit-length outputs keep it below that anyway."
    )
    transforms: Literal["rotations", "flips", "none"] = Field(
        "rotations", description="What the probe must tell apart beside the classes; rotations by right angles."
    )
    probe_steps: Annotated[int, Field(ge=0, le=100_000)] = Field(100, description="Updates of each round's new probe.")
    probe_batch_size: Annotated[int, Field(ge=2, le=8192)] = Field(64, description="Images per update, each turned.")
    probe_learning_rate: Positive = Field(0.1, description="Learning rate of the probe's SGD with momentum 0.9.")
    probe_capacity: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        2048, description="Images kept for the probe, over all classes, in 8 bits."
    )

    def num_transforms(self, shape: Shape) -> int:
        """Return the number of transforms; images that are not square are only turned by half a circle."""
        return {"rotations": 4 if shape[1] == shape[2] else 2, "flips": 2, "none": 1}[self.transforms]

    def feedback_images(self, shape: Shape) -> int:
        """Return the number of transforms if the probe's failure has a weight."""
        return self.num_transforms(shape) if self.adv_weight else 0

    def update_passes(self, shape: Shape, *, feedback: bool) -> list[Passes]:
        """Return the usual passes; the student sees every image in all transforms, and so does its probe before."""
        usual = super().update_passes(shape, feedback=False)
        if not (feedback and self.adv_weight):
            return usual
        each = self.num_transforms(shape)
        probe = passes(Network.STUDENT, Direction.FORWARD, each * self.probe_batch_size, times=self.probe_steps)
        return [*usual, probe, passes(Network.STUDENT, Direction.TO_INPUT, each * self.batch_size, times=self.steps)]
