"""Methods: ways to synthesize images. One file per paper; the file's name is the method's name on the wire."""

from collections.abc import Callable, Mapping

import torch

from dfkd_core.config import DistillConfig
from dfkd_core.methods.deepinversion import DeepInversion
from dfkd_core.methods.pre_dfkd import PreDfkd
from dfkd_core.methods.synthesizer import Synthesizer
from dfkd_core.streams import Streams
from dfkd_core.teachers.teacher import Teacher

__all__ = ["Synthesizer", "build_synthesizer"]

METHODS: Mapping[str, Callable[..., Synthesizer]] = {
    "deepinversion": DeepInversion,
    "pre_dfkd": PreDfkd,
}


def build_synthesizer(
    config: DistillConfig, teacher: Teacher, *, streams: Streams, device: torch.device
) -> Synthesizer:
    """The synthesizer that `config.method` names."""
    return METHODS[config.method](config.method_options, teacher, streams=streams, device=device)
