"""Options and published settings of `cmi` (torch-free)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.base import Shape
from dfkd_core.options.field_types import Fraction, Positive, Weight
from dfkd_core.options.images import BANK, PUBLISHED_REDRAWN, RedrawnOptions
from dfkd_core.options.passes import Direction, Network, Passes, passes
from dfkd_core.options.published import Presets, merged

PAPER: dict[str, Any] = merged(
    PUBLISHED_REDRAWN,
    {
        "budget": {"steps": 40 * 2000},
        "memory_options": {"capacity": 60_000},
        "training": {
            "batch_size": 128,
            "updates_per_round": 2000,
        },
        "method_options": {
            "latent_dim": 256,
            "batch_size": 256,
            "warmup_rounds": 195,  # a bank of 50 000 inverted images, then 40 rounds add 10 000
            "steps": 500,
            "learning_rate": 1e-3,
            "code_learning_rate": 1e-3,
            "target_weight": 0.5,
            "bn_weight": 1.0,
            "adv_weight": 0.5,
            "adv_limit": 1e6,
            "contrast_weight": 0.8,
            "contrast_temperature": 0.2,
            "crop": 0.25,
            "embedding_dim": 256,
            "head_learning_rate": 1e-3,
            "negatives": 4096,
            "feature_capacity": 40_960,
            "mirror": 0.5,
        },
    },
)
"""The settings of the released code for CIFAR-10, in its adversarial form that starts from a bank of images."""


class CmiOptions(RedrawnOptions):
    """Contrastive model inversion (Fang et al., IJCAI 2021): each batch differs from what was made before."""

    presets: ClassVar[Presets] = {"default": BANK, "paper": PAPER}

    name: Literal["cmi"] = Field("cmi", exclude=True)
    target_weight: Weight = Field(0.5, description="Weight of the cross-entropy with the batch's classes.")
    adv_weight: Weight = Field(0.5, description="Weight of the student's feedback, after the warm-up.")
    adv_limit: Positive = Field(2.0, description="Divergence beyond which an image is not pushed further.")
    contrast_weight: Weight = Field(0.8, description="Weight of the contrast with other images.")
    contrast_temperature: Positive = Field(0.2, description="Temperature of the contrastive loss.")
    crop: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(
        0.25, description="Least share of the area that a local view shows."
    )
    embedding_dim: Annotated[int, Field(ge=1, le=4096)] = Field(64, description="Length of an image's embedding.")
    head_learning_rate: Positive = Field(1e-3, description="Learning rate of Adam for the embedding head.")
    negatives: Annotated[int, Field(ge=0, le=100_000)] = Field(512, description="Earlier images in a contrast.")
    feature_capacity: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        4096, description="Earlier images whose features are kept for that, the newest."
    )
    mirror: Fraction = Field(0.0, description="Share of local views that are mirrored; published: 0.5.")

    def update_passes(self, shape: Shape, *, feedback: bool) -> list[Passes]:
        """Return the usual passes, those of the local views in each step, and those of the features that are kept."""
        usual = super().update_passes(shape, feedback=feedback)
        if not self.contrast_weight:
            return usual
        views = passes(Network.TEACHER, Direction.TO_INPUT, self.batch_size, times=self.steps)
        return [*usual, views, passes(Network.TEACHER, Direction.FORWARD, self.batch_size, times=2)]
