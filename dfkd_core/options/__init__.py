"""The menu of methods and memories (torch-free): their options with defaults, and their presets.

A method brings one file here, with its options class and its `PRESETS`, and its implementation in `methods/` under the
same name. A preset is a tree of settings laid under those that the caller gives.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from dfkd_core.options import cgdd, dafl, ddad, dfad, dfq, mad, memories, pre_dfkd, rdskd
from dfkd_core.options.cgdd import CgddOptions
from dfkd_core.options.dafl import DaflOptions
from dfkd_core.options.ddad import DdadOptions
from dfkd_core.options.dfad import DfadOptions
from dfkd_core.options.dfq import DfqOptions
from dfkd_core.options.generators import ConditionalOptions, GeneratorOptions, SynthesisOptions, TermOptions
from dfkd_core.options.mad import MadOptions
from dfkd_core.options.memories import EmaOptions, NoMemoryOptions, ReservoirOptions, RingOptions, VaeOptions
from dfkd_core.options.pre_dfkd import PreDfkdOptions
from dfkd_core.options.rdskd import RdskdOptions

__all__ = [
    "MEMORY_PRESETS",
    "PRESETS",
    "CgddOptions",
    "ConditionalOptions",
    "DaflOptions",
    "DdadOptions",
    "DfadOptions",
    "DfqOptions",
    "EmaOptions",
    "GeneratorOptions",
    "MadOptions",
    "MemoryName",
    "MemoryOptions",
    "MethodName",
    "MethodOptions",
    "NoMemoryOptions",
    "PreDfkdOptions",
    "PresetName",
    "RdskdOptions",
    "ReservoirOptions",
    "RingOptions",
    "SynthesisOptions",
    "TermOptions",
    "VaeOptions",
]

MethodName = Literal[
    "cgdd",
    "dafl",
    "ddad",
    "dfad",
    "dfq",
    "mad",
    "pre_dfkd",
    "rdskd",
]
MemoryName = Literal[
    "ema",
    "none",
    "reservoir",
    "ring",
    "vae",
]
PresetName = Literal["default", "paper"]

MethodOptions = Annotated[
    CgddOptions
    | DaflOptions
    | DdadOptions
    | DfadOptions
    | DfqOptions
    | MadOptions
    | PreDfkdOptions
    | RdskdOptions,
    Field(discriminator="name"),
]  # fmt: skip
MemoryOptions = Annotated[
    EmaOptions
    | NoMemoryOptions
    | ReservoirOptions
    | RingOptions
    | VaeOptions,
    Field(discriminator="name"),
]  # fmt: skip

PRESETS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "cgdd": cgdd.PRESETS,
    "dafl": dafl.PRESETS,
    "ddad": ddad.PRESETS,
    "dfad": dfad.PRESETS,
    "dfq": dfq.PRESETS,
    "mad": mad.PRESETS,
    "pre_dfkd": pre_dfkd.PRESETS,
    "rdskd": rdskd.PRESETS,
}
"""Method → preset → what it changes of the distillation's defaults."""

MEMORY_PRESETS: Mapping[str, Mapping[str, dict[str, Any]]] = memories.PRESETS
"""Memory → preset → its options, where the memory is not the one of the method's preset."""
