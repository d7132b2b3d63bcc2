"""Options and published settings of `sttss` (torch-free)."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.field_types import Positive, Weight
from dfkd_core.options.images import OFFLINE, TRANSFER_SET, PixelOptions
from dfkd_core.options.published import Presets, merged

DEFAULT: dict[str, Any] = merged(OFFLINE, {"method_options": {"start": "shapes"}})

PAPER: dict[str, Any] = merged(
    TRANSFER_SET,
    {"method_options": {"variance": 1.5, "temperature": 20.0, "rectified": True, "activation_weight": 0.05}},
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
