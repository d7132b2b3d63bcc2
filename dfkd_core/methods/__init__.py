"""Methods: ways to synthesize images. One file per paper; the file's name is the method's name on the wire."""

from collections.abc import Callable, Mapping

import torch

from dfkd_core.methods.cgdd import Cgdd
from dfkd_core.methods.cmi import Cmi
from dfkd_core.methods.csd import Csd
from dfkd_core.methods.dafl import Dafl
from dfkd_core.methods.ddad import Ddad
from dfkd_core.methods.deepinversion import DeepInversion
from dfkd_core.methods.dfad import Dfad
from dfkd_core.methods.dfq import Dfq
from dfkd_core.methods.fast import Fast
from dfkd_core.methods.mad import Mad
from dfkd_core.methods.nayer import Nayer
from dfkd_core.methods.parts.synthesizer import Synthesizer
from dfkd_core.methods.pre_dfkd import PreDfkd
from dfkd_core.methods.rdskd import Rdskd
from dfkd_core.methods.ssd_kd import SsdKd
from dfkd_core.methods.sttss import Sttss
from dfkd_core.networks.teacher import Teacher
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig

__all__ = ["METHODS", "Synthesizer", "build_synthesizer"]

METHODS: Mapping[str, Callable[..., Synthesizer]] = {
    "cgdd": Cgdd,
    "cmi": Cmi,
    "csd": Csd,
    "dafl": Dafl,
    "ddad": Ddad,
    "deepinversion": DeepInversion,
    "dfad": Dfad,
    "dfq": Dfq,
    "fast": Fast,
    "mad": Mad,
    "nayer": Nayer,
    "pre_dfkd": PreDfkd,
    "rdskd": Rdskd,
    "ssd_kd": SsdKd,
    "sttss": Sttss,
}


def build_synthesizer(
    config: DistillConfig, teacher: Teacher, *, streams: Streams, device: torch.device
) -> Synthesizer:
    """The synthesizer that `config.method` names."""
    return METHODS[config.method](config.method_options, teacher, streams=streams, device=device)
