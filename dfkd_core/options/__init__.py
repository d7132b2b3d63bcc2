"""The menu of methods and memories (torch-free): their options with defaults, and their presets.

A method brings one file here, with its options class and its `PRESETS`, and its implementation in `methods/` under the
same name. A preset is a tree of settings laid under those that the caller gives.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from dfkd_core.options import (
    deepinversion,
    pre_dfkd,
)
from dfkd_core.options.deepinversion import DeepInversionOptions
from dfkd_core.options.generators import GeneratorOptions, SynthesisOptions
from dfkd_core.options.images import ImageOptions, PixelOptions, RedrawnOptions
from dfkd_core.options.memories import NoMemoryOptions, ReservoirOptions, VaeOptions
from dfkd_core.options.pre_dfkd import PreDfkdOptions

__all__ = [
    "PRESETS",
    "DeepInversionOptions",
    "GeneratorOptions",
    "ImageOptions",
    "MemoryName",
    "MemoryOptions",
    "MethodName",
    "MethodOptions",
    "NoMemoryOptions",
    "PixelOptions",
    "PreDfkdOptions",
    "PresetName",
    "RedrawnOptions",
    "ReservoirOptions",
    "SynthesisOptions",
    "VaeOptions",
]

MethodName = Literal[
    "deepinversion",
    "pre_dfkd",
]
MemoryName = Literal["none", "reservoir", "vae"]
PresetName = Literal["default", "paper"]

MethodOptions = Annotated[
    DeepInversionOptions
    | PreDfkdOptions,
    Field(discriminator="name"),
]  # fmt: skip
MemoryOptions = Annotated[NoMemoryOptions | ReservoirOptions | VaeOptions, Field(discriminator="name")]

PRESETS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "deepinversion": deepinversion.PRESETS,
    "pre_dfkd": pre_dfkd.PRESETS,
}
"""Method → preset → what it changes of the distillation's defaults."""
