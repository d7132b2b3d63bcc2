"""Options of the memory `reservoir` (torch-free)."""

from typing import Annotated, Literal

from pydantic import Field

from dfkd_core.options.base import ReplayOptions


class ReservoirOptions(ReplayOptions):
    """Uniform sample of everything ever synthesized, class-balanced, 8-bit images with cached logits."""

    name: Literal["reservoir"] = Field("reservoir", exclude=True)
    capacity: Annotated[int, Field(ge=1, le=10_000_000)] = Field(10_000, description="Images kept, over all classes.")
