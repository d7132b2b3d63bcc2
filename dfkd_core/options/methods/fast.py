"""Options and published settings of `fast` (torch-free)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.field_types import Fraction, Positive, Weight
from dfkd_core.options.images import BANK, PUBLISHED_REDRAWN, RedrawnOptions
from dfkd_core.options.published import Presets, merged

PAPER: dict[str, Any] = merged(
    PUBLISHED_REDRAWN,
    {
        "budget": {"steps": 200 * 400},
        "memory_options": {"capacity": 60_000},
        "training": {
            "learning_rate": 0.2,
            "batch_size": 256,
            "updates_per_round": 400,
        },
        "method_options": {
            "latent_dim": 256,
            "batch_size": 256,
            "warmup_rounds": 20,
            "steps": 10,
            "learning_rate": 2e-3,
            "code_learning_rate": 0.015,
            "meta_learning_rate": 0.02,
            "target_weight": 0.4,
            "bn_weight": 10.0,
            "bn_past": 0.9,
            "adv_weight": 1.1,
            "adv_limit": 1e6,
        },
    },
)
"""The settings of the released code for CIFAR-10 and wide ResNets, ten steps; without its one reset of first layers."""


class FastOptions(RedrawnOptions):
    """FastDFKD (Fang et al., AAAI 2022): a generator that learns to become a batch of images in a few steps."""

    presets: ClassVar[Presets] = {"default": BANK, "paper": PAPER}

    name: Literal["fast"] = Field("fast", exclude=True)
    steps: Annotated[int, Field(ge=1, le=100_000)] = Field(10, description="Adam steps for a batch of images.")
    warmup_rounds: Annotated[int, Field(ge=0, le=100_000)] = Field(
        40, description="Rounds that build the first images, before the first student update."
    )
    decay: Literal["cosine", "none"] = Field("none", description="Decay of the learning rate within each batch.")
    target_weight: Weight = Field(0.5, description="Weight of the cross-entropy with the batch's classes.")
    bn_weight: Weight = Field(5.0, description="Weight of the BatchNorm statistics, where offered.")
    bn_past: Fraction = Field(
        0.9, description="Share of the earlier batches in the statistics that are matched, with this decay; 0: none."
    )
    adv_weight: Weight = Field(1.0, description="Weight of the student's feedback, after the warm-up.")
    adv_limit: Positive = Field(2.0, description="Divergence beyond which an image is not pushed further.")
    meta_learning_rate: Positive = Field(
        0.02, description="Learning rate of the Adam that moves the start; published: learning rate x steps."
    )
