"""Options and published settings of `deepinversion` (torch-free)."""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.base import HALF_SIZE, Shape
from dfkd_core.options.field_types import Fraction, Positive, Weight
from dfkd_core.options.images import BANK, COARSE_COST, CROP_AND_FLIP, PUBLISHED, PixelOptions
from dfkd_core.options.kinds import COSTS, KindsOrNone, mean_cost
from dfkd_core.options.passes import Direction, Network, Passes, passes
from dfkd_core.options.published import Presets, merged

FIGURE_VALUES = 40  # kept for each place of a figure's picture, in any number of channels, with what its gradient needs
FIGURE_STEP = 1.3  # time of a figure's picture with its gradient, in times of the picture alone
PSEUDO_PICTURES = 512  # drawn for the pseudo-statistics

DEFAULT: dict[str, Any] = merged(BANK, {"method_options": {"start": "shapes"}})

PAPER: dict[str, Any] = merged(
    PUBLISHED,
    {
        "budget": {"steps": 200 * 400},
        "training": {
            "batch_size": 128,
            "updates_per_round": 400,
            "augmentation": CROP_AND_FLIP,
        },
        "method_options": {
            "batch_size": 256,
            "warmup_rounds": 0,
            "steps": 2000,
            "learning_rate": 0.05,
            "betas": [0.9, 0.999],
            "decay": "none",
            "keep": "last",  # the released code means to keep the best, yet what it keeps goes on changing
            "shift": 2,
            "flip": False,
            "targets": "onehot",
            "target_weight": 1.0,
            "bn_weight": 10.0,
            "smoothness": "norm",
            "smoothness_weight": 2.5e-5,
            "l2_weight": 0.0,
            "adv_weight": 0.0,
            "valid_range": False,
            "start": "normal",
        },
    },
)
"""The released code's "parameters from the paper" for CIFAR-10. What a student then learns from such images is not
published; the rest is the usual training of the comparisons with it."""


class DeepInversionOptions(PixelOptions):
    """DeepInversion and its adaptive form (Yin et al., CVPR 2020): images inverted from the teacher alone."""

    presets: ClassVar[Presets] = {"default": DEFAULT, "paper": PAPER}

    name: Literal["deepinversion"] = Field("deepinversion", exclude=True)
    targets: Literal["auto", "onehot", "soft"] = Field(
        "auto", description="onehot: classes; soft: random probabilities; auto: soft where no BatchNorm is offered."
    )
    target_lift: Positive = Field(12.0, description="Soft targets: one logit of N(0, 1) is raised by up to so much.")
    smoothness_weight: Weight = Field(0.3, description="Weight of the total variation of the images.")
    coarse_steps: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0,
        description="Adam steps at half the height and width, before the images are enlarged for the other steps. "
        "For images of more than 48 × 48 pixels, where the teacher takes smaller ones too.",
    )
    figure_share: Fraction = Field(
        0.0, description="Share of the images that are figures, whose strokes are optimised, not their pixels."
    )
    figure_learning_rate: Positive = Field(
        0.05, description="Learning rate of Adam for the points of figures, in shorter sides of the image."
    )
    figure_candidates: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="Figures that are drawn for each one that is optimised; the teacher chooses."
    )

    pseudo_statistics: KindsOrNone = Field(
        [],
        description="Kinds of drawn pictures on which a teacher without BatchNorm shows what stands in for its "
        "statistics; none: it is inverted without statistics.",
    )

    def needed(self) -> frozenset[str]:
        """Return what the teacher must offer with these settings."""
        return self.needs | ({HALF_SIZE} if self.coarse_steps else frozenset())

    @property
    def inserts_batchnorm(self) -> bool:
        """True if pseudo-statistics are matched."""
        return bool(self.pseudo_statistics)

    def start_passes(self) -> list[Passes]:
        """Return the passes of the pictures for pseudo-statistics."""
        return [passes(Network.TEACHER, Direction.FORWARD, PSEUDO_PICTURES)] if self.pseudo_statistics else []

    def start_drawn(self) -> float:
        """Return the cost of those pictures."""
        return PSEUDO_PICTURES * mean_cost(self.pseudo_statistics) if self.pseudo_statistics else 0.0

    def update_passes(self, shape: Shape, *, feedback: bool) -> list[Passes]:
        """Return the passes of every method that optimises images, and those that choose among figures."""
        found = super().update_passes(shape, feedback=feedback)
        if self.coarse_steps:
            count = math.ceil(COARSE_COST * (1 - self.figure_share) * self.batch_size)  # as costly full images
            found.append(passes(Network.TEACHER, Direction.TO_INPUT, count, times=self.coarse_steps))
        if self.figure_share:
            candidates = round(self.figure_share * self.batch_size * self.figure_candidates)
            found.append(passes(Network.TEACHER, Direction.FORWARD, max(1, candidates)))
        return found

    def kept_values(self, shape: Shape) -> int:
        """Return what the gradient of a figure's picture needs, if some images are figures."""
        return FIGURE_VALUES * shape[1] * shape[2] if self.figure_share else 0

    def update_drawn(self) -> float:
        """Return the cost of the starts of pixels, of candidates, and of the pictures of every step of figures."""
        pictures = self.figure_candidates + self.steps * FIGURE_STEP
        figures = self.figure_share * self.batch_size * pictures * COSTS["figures"]
        return (1 - self.figure_share) * super().update_drawn() + figures
