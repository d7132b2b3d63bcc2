"""Options and published settings of `ssd_kd` (torch-free)."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.base import Shape
from dfkd_core.options.field_types import Positive, Weight
from dfkd_core.options.images import BANK, PUBLISHED_REDRAWN, RedrawnOptions
from dfkd_core.options.passes import Direction, Network, Passes, passes
from dfkd_core.options.published import Presets, merged

DEFAULT: dict[str, Any] = merged(BANK, {"memory": "priority", "memory_options": {"capacity": 5000}})

PAPER: dict[str, Any] = merged(
    PUBLISHED_REDRAWN,
    {
        "budget": {"steps": 200 * 400},
        "memory": "priority",
        "memory_options": {"capacity": 5000, "exponent": 0.6, "correction": 0.4},
        "training": {
            "learning_rate": 0.2,
            "batch_size": 256,
            "updates_per_round": 400,
            "replays_per_round": 5000,
        },
        "method_options": {
            "latent_dim": 256,
            "batch_size": 256,
            "warmup_rounds": 20,
            "steps": 200,
            "learning_rate": 1e-3,
            "code_learning_rate": 1e-3,
            "target_weight": 0.5,
            "bn_weight": 1.0,
            "adv_weight": 1.0,
            "adv_limit": 1e6,
            "focus": 2.0,
            "diversity": 1.0,
        },
    },
)
"""Only the size of the pool (a tenth of the real set) and the form of the two factors are known of the paper, whose
code was never released; everything else is the usual setting of this line of work."""


class SsdKdOptions(RedrawnOptions):
    """SSD-KD (Liu et al., CVPR 2024): few images, rare and hard ones first, replayed by priority."""

    presets: ClassVar[Presets] = {"default": DEFAULT, "paper-reconstructed": PAPER}

    name: Literal["ssd_kd"] = Field("ssd_kd", exclude=True)
    focus: Weight = Field(1.0, description="Exponent of 1 - p in an image's weight; 0: all images weigh alike.")
    diversity: Weight = Field(1.0, description="Exponent of a class's rarity among the images made; 0: none.")
    adv_weight: Weight = Field(0.5, description="Weight of the student's feedback, after the warm-up.")
    adv_limit: Positive = Field(2.0, description="Divergence beyond which an image is not pushed further.")

    def update_passes(self, shape: Shape, *, feedback: bool) -> list[Passes]:
        """Return the usual passes, and the labels by which the new images are counted."""
        counted = passes(Network.TEACHER, Direction.FORWARD, self.batch_size)
        return [*super().update_passes(shape, feedback=feedback), counted]
