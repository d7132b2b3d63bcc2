"""The menu of methods and memories (torch-free): their options with defaults, and their presets.

A method brings one file here, with its options class and its `PRESETS`, and its implementation in `methods/` under the
same name. A preset is a tree of settings laid under those that the caller gives.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from dfkd_core.options import (
    cmi,
    csd,
    deepinversion,
    fast,
    nayer,
    pre_dfkd,
    ssd_kd,
    sttss,
)
from dfkd_core.options.cmi import CmiOptions
from dfkd_core.options.csd import CsdOptions
from dfkd_core.options.deepinversion import DeepInversionOptions
from dfkd_core.options.fast import FastOptions
from dfkd_core.options.generators import GeneratorOptions, SynthesisOptions
from dfkd_core.options.images import ImageOptions, PixelOptions, RedrawnOptions
from dfkd_core.options.memories import NoMemoryOptions, PriorityOptions, ReservoirOptions, VaeOptions
from dfkd_core.options.nayer import NayerOptions
from dfkd_core.options.pre_dfkd import PreDfkdOptions
from dfkd_core.options.ssd_kd import SsdKdOptions
from dfkd_core.options.sttss import SttssOptions

__all__ = [
    "PRESETS",
    "CmiOptions",
    "CsdOptions",
    "DeepInversionOptions",
    "FastOptions",
    "GeneratorOptions",
    "ImageOptions",
    "MemoryName",
    "MemoryOptions",
    "MethodName",
    "MethodOptions",
    "NayerOptions",
    "NoMemoryOptions",
    "PixelOptions",
    "PreDfkdOptions",
    "PresetName",
    "PriorityOptions",
    "RedrawnOptions",
    "ReservoirOptions",
    "SsdKdOptions",
    "SttssOptions",
    "SynthesisOptions",
    "VaeOptions",
]

MethodName = Literal[
    "cmi",
    "csd",
    "deepinversion",
    "fast",
    "nayer",
    "pre_dfkd",
    "ssd_kd",
    "sttss",
]
MemoryName = Literal[
    "none",
    "priority",
    "reservoir",
    "vae",
]
PresetName = Literal["default", "paper"]

MethodOptions = Annotated[
    CmiOptions
    | CsdOptions
    | DeepInversionOptions
    | FastOptions
    | NayerOptions
    | PreDfkdOptions
    | SsdKdOptions
    | SttssOptions,
    Field(discriminator="name"),
]
MemoryOptions = Annotated[
    NoMemoryOptions
    | PriorityOptions
    | ReservoirOptions
    | VaeOptions,
    Field(discriminator="name"),
]  # fmt: skip

PRESETS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "cmi": cmi.PRESETS,
    "csd": csd.PRESETS,
    "deepinversion": deepinversion.PRESETS,
    "fast": fast.PRESETS,
    "nayer": nayer.PRESETS,
    "pre_dfkd": pre_dfkd.PRESETS,
    "ssd_kd": ssd_kd.PRESETS,
    "sttss": sttss.PRESETS,
}
"""Method → preset → what it changes of the distillation's defaults."""
