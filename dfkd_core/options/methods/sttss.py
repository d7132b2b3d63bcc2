"""Options and published settings of `sttss` (torch-free)."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.field_types import Positive, Weight
from dfkd_core.options.images import OFFLINE, PUBLISHED, PixelOptions
from dfkd_core.options.published import Presets, merged

DEFAULT: dict[str, Any] = merged(OFFLINE, {"method_options": {"start": "shapes"}})

PAPER: dict[str, Any] = merged(
    PUBLISHED,
    {
        "budget": {"steps": 500 * 375},  # epochs of 24 000 images
        "training": {
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "decay": "none",
            "batch_size": 64,
            "updates_per_round": 375,
        },
        "steadiness": {"consolidation": 1.0},  # the images come before the student
        "memory_options": {"capacity": 24_000},
        "method_options": {
            "batch_size": 100,
            "warmup_rounds": 240,
            "steps": 1500,
            "learning_rate": 1e-3,
            "betas": [0.9, 0.999],
            "decay": "none",
            "keep": "last",
            "shift": 0,
            "flip": False,
            "start": "normal",
            "valid_range": True,
            "variance": 1.5,
            "temperature": 20.0,
            "rectified": True,
            "activation_weight": 0.05,
            "bn_weight": 0.0,
            "smoothness_weight": 0.0,
        },
    },
)
"""The paper's variance and weights for MNIST; temperature, steps, rates and the student's training are not known from
it and are those of the method it improves on (Nayak et al., Zero-Shot Knowledge Distillation, ICML 2019)."""


class SttssOptions(PixelOptions):
    """Soft targeted transfer set synthesis (Wang, AAAI 2021): images for random points of the feature space."""

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    presets: ClassVar[Presets] = {"default": DEFAULT, "paper-reconstructed": PAPER}

    name: Literal["sttss"] = Field("sttss", exclude=True)
    variance: Positive = Field(1.5, description="Variance of every feature.")
    temperature: Positive = Field(1.0, description="Temperature of the targets and of the teacher's answers.")
    rectified: bool = Field(True, description="A sampled feature goes through a rectifier, as the teacher's own do.")
    warmup_rounds: int = Field(32, ge=0, le=100_000, description="Rounds that build the images.")
    activation_weight: Weight = Field(0.05, description="Weight of mean |penultimate feature|.")
    smoothness_weight: Weight = Field(0.3, description="Weight of the total variation of the images.")
    bn_weight: Weight = Field(1.0, description="Weight of the BatchNorm statistics, where offered; published: 0.")
