"""The menu of methods and memories (torch-free): their options with defaults, and their presets.

A method brings one file here, with its options class and its `PRESETS`, and its implementation in `methods/` under the
same name. A preset is a tree of settings laid under those that the caller gives.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from dfkd_core.options import (
    cgdd,
    cmi,
    csd,
    dafl,
    ddad,
    deepinversion,
    dfad,
    dfq,
    fast,
    mad,
    memories,
    nayer,
    pre_dfkd,
    rdskd,
    ssd_kd,
    sttss,
)
from dfkd_core.options.cgdd import CgddOptions
from dfkd_core.options.cmi import CmiOptions
from dfkd_core.options.csd import CsdOptions
from dfkd_core.options.dafl import DaflOptions
from dfkd_core.options.ddad import DdadOptions
from dfkd_core.options.deepinversion import DeepInversionOptions
from dfkd_core.options.dfad import DfadOptions
from dfkd_core.options.dfq import DfqOptions
from dfkd_core.options.fast import FastOptions
from dfkd_core.options.generators import ConditionalOptions, GeneratorOptions, SynthesisOptions, TermOptions
from dfkd_core.options.images import ImageOptions, PixelOptions, RedrawnOptions
from dfkd_core.options.mad import MadOptions
from dfkd_core.options.memories import (
    EmaOptions,
    NoMemoryOptions,
    PriorityOptions,
    ReservoirOptions,
    RingOptions,
    VaeOptions,
)
from dfkd_core.options.nayer import NayerOptions
from dfkd_core.options.pre_dfkd import PreDfkdOptions
from dfkd_core.options.rdskd import RdskdOptions
from dfkd_core.options.ssd_kd import SsdKdOptions
from dfkd_core.options.sttss import SttssOptions

__all__ = [
    "MEMORIES",
    "MEMORY_PRESETS",
    "METHODS",
    "PRESETS",
    "CgddOptions",
    "CmiOptions",
    "ConditionalOptions",
    "CsdOptions",
    "DaflOptions",
    "DdadOptions",
    "DeepInversionOptions",
    "DfadOptions",
    "DfqOptions",
    "EmaOptions",
    "FastOptions",
    "GeneratorOptions",
    "ImageOptions",
    "MadOptions",
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
    "RdskdOptions",
    "RedrawnOptions",
    "ReservoirOptions",
    "RingOptions",
    "SsdKdOptions",
    "SttssOptions",
    "SynthesisOptions",
    "TermOptions",
    "VaeOptions",
]

MethodName = Literal[
    "cgdd",
    "cmi",
    "csd",
    "dafl",
    "ddad",
    "deepinversion",
    "dfad",
    "dfq",
    "fast",
    "mad",
    "nayer",
    "pre_dfkd",
    "rdskd",
    "ssd_kd",
    "sttss",
]
MemoryName = Literal[
    "ema",
    "none",
    "priority",
    "reservoir",
    "ring",
    "vae",
]
PresetName = Literal["default", "paper", "paper-reconstructed"]

MethodOptions = Annotated[
    CgddOptions
    | CmiOptions
    | CsdOptions
    | DaflOptions
    | DdadOptions
    | DeepInversionOptions
    | DfadOptions
    | DfqOptions
    | FastOptions
    | MadOptions
    | NayerOptions
    | PreDfkdOptions
    | RdskdOptions
    | SsdKdOptions
    | SttssOptions,
    Field(discriminator="name"),
]  # fmt: skip
MemoryOptions = Annotated[
    EmaOptions
    | NoMemoryOptions
    | PriorityOptions
    | ReservoirOptions
    | RingOptions
    | VaeOptions,
    Field(discriminator="name"),
]  # fmt: skip


def classes_of(union: Any) -> Mapping[str, Any]:  # Any: a typing construct, and its classes
    """The options classes in an annotated union, by the name that stands in the spec."""
    annotated = get_args(union)[0]
    classes = get_args(annotated) or (annotated,)
    return {cls.model_fields["name"].default: cls for cls in classes}


METHODS: Mapping[str, type[SynthesisOptions]] = classes_of(MethodOptions)
MEMORIES: Mapping[str, type[NoMemoryOptions]] = classes_of(MemoryOptions)

PRESETS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "cgdd": cgdd.PRESETS,
    "cmi": cmi.PRESETS,
    "csd": csd.PRESETS,
    "dafl": dafl.PRESETS,
    "ddad": ddad.PRESETS,
    "deepinversion": deepinversion.PRESETS,
    "dfad": dfad.PRESETS,
    "dfq": dfq.PRESETS,
    "fast": fast.PRESETS,
    "mad": mad.PRESETS,
    "nayer": nayer.PRESETS,
    "pre_dfkd": pre_dfkd.PRESETS,
    "rdskd": rdskd.PRESETS,
    "ssd_kd": ssd_kd.PRESETS,
    "sttss": sttss.PRESETS,
}
"""Method → preset → what it changes of the distillation's defaults."""

MEMORY_PRESETS: Mapping[str, Mapping[str, dict[str, Any]]] = memories.PRESETS
"""Memory → preset → its options, where the memory is not the one of the method's preset."""
