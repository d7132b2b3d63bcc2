"""Options of the memory `ring` (torch-free)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.base import ReplayOptions
from dfkd_core.options.published import Presets


class RingOptions(ReplayOptions):
    """The newest batches in a ring (MB-DFKD, Binici et al., WACV 2022): the oldest gives way to the newest."""

    presets: ClassVar[Presets] = {
        "paper-reconstructed": {"push_rounds": 5 * 36, "first_push_rounds": 36, "storage": "float32"}
    }

    name: Literal["ring"] = Field("ring", exclude=True)
    slots: Annotated[int, Field(ge=1, le=100_000)] = Field(10, description="Batches kept.")
    slot_images: Annotated[int, Field(ge=1, le=8192)] = Field(128, description="Images of a batch that are kept.")
    push_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        5, description="Teaching rounds between two batches that are kept; published: 5 epochs of 36."
    )
    first_push_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1, description="Teaching rounds until the first one; published: an epoch of 36."
    )
    draw: Literal["slot", "image"] = Field(
        "slot", description="slot: whole batches, chosen uniformly (published); image: single images."
    )
    storage: Literal["float32", "float16", "uint8"] = Field(
        "uint8", description="How pixels are kept; uint8 clips them to the valid range. Published: float32."
    )
