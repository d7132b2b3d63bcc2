"""Options and published settings of `zskd` (torch-free)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.field_types import Positive, Weight
from dfkd_core.options.images import OFFLINE, TRANSFER_SET, PixelOptions
from dfkd_core.options.published import Presets, merged

DEFAULT: dict[str, Any] = merged(OFFLINE, {"method_options": {"start": "shapes"}})

PAPER: dict[str, Any] = merged(TRANSFER_SET, {"method_options": {"scales": [1.0, 0.1], "temperature": 20.0}})
"""The paper's scales, temperature and number of images, for MNIST; steps and rates of its code for CIFAR-10."""


class ZskdOptions(PixelOptions):
    """Zero-shot knowledge distillation (Nayak et al., ICML 2019): images for soft labels of similar classes."""

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    presets: ClassVar[Presets] = {"default": DEFAULT, "paper-reconstructed": PAPER}

    name: Literal["zskd"] = Field("zskd", exclude=True)
    scales: Annotated[list[Positive], Field(min_length=1, max_length=8)] = Field(
        [1.0, 0.1],
        description="Scales of the concentrations of the Dirichlet distributions; each image takes one of them. The "
        "smaller a scale, the surer the soft labels.",
    )
    temperature: Positive = Field(1.0, description="Temperature of the teacher's answers; published: 20.")
    warmup_rounds: int = Field(32, ge=0, le=100_000, description="Rounds that build the images.")
    smoothness_weight: Weight = Field(0.3, description="Weight of the total variation of the images.")
    bn_weight: Weight = Field(1.0, description="Weight of the BatchNorm statistics, where offered; published: 0.")
