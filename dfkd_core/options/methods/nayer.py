"""Options and published settings of `nayer` (torch-free)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.field_types import Fraction, Positive, Weight
from dfkd_core.options.images import BANK, PUBLISHED_REDRAWN, RedrawnOptions
from dfkd_core.options.published import Presets, merged

PAPER: dict[str, Any] = merged(
    PUBLISHED_REDRAWN,
    {
        "budget": {"steps": 300 * 400},
        "memory_options": {"capacity": 320_000},
        "training": {
            "learning_rate": 0.2,
            "batch_size": 512,
            "updates_per_round": 400,
            "fresh_batches": 2,
        },
        "method_options": {
            "latent_dim": 1000,
            "batch_size": 400,
            "updates_per_round": 2,
            "warmup_rounds": 100,  # 20 rounds of 10 batches
            "steps": 30,
            "learning_rate": 4e-3,
            "code_learning_rate": 4e-3,
            "target_weight": 0.5,
            "bn_weight": 10.0,
            "bn_past": 0.9,
            "adv_weight": 1.33,
            "adv_limit": 1e6,
            "life": 20,  # ten rounds
        },
    },
)
"""The settings of the released code for CIFAR-10, but for its text embeddings: those would be outside knowledge."""


class NayerOptions(RedrawnOptions):
    """NAYER (Tran et al., CVPR 2024) without a language model: class embeddings through a layer that is drawn anew."""

    presets: ClassVar[Presets] = {"default": BANK, "paper": PAPER}

    name: Literal["nayer"] = Field("nayer", exclude=True)
    steps: Annotated[int, Field(ge=1, le=100_000)] = Field(30, description="Adam steps for a batch of images.")
    decay: Literal["cosine", "none"] = Field("none", description="Decay of the learning rate within each batch.")
    target_weight: Weight = Field(0.5, description="Weight of the cross-entropy with the batch's classes.")
    bn_weight: Weight = Field(5.0, description="Weight of the BatchNorm statistics, where offered.")
    bn_past: Fraction = Field(
        0.9, description="Share of the earlier batches in the statistics that are matched, with this decay; 0: none."
    )
    adv_weight: Weight = Field(1.0, description="Weight of the student's feedback, after the warm-up.")
    adv_limit: Positive = Field(2.0, description="Divergence beyond which an image is not pushed further.")
    life: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10, description="Batches after which the generator starts anew."
    )
