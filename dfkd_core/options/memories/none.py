"""Options of the memory `none` (torch-free)."""

from typing import Literal

from pydantic import Field

from dfkd_core.options.base import ReplayOptions


class NoMemoryOptions(ReplayOptions):
    """No replay."""

    name: Literal["none"] = Field("none", exclude=True)
