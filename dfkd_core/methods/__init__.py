"""Methods: ways to synthesize images. Each paper has one file, named like the method in the spec.

A method that only chooses weights for the terms that all generators share has no file here. It consists of its options
in `dfkd_core/options/methods/`.
"""

import sys

import torch

from dfkd_core.methods.parts.synthesizer import Synthesizer
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.registry import implementation
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig

__all__ = ["Synthesizer", "build_synthesizer"]


def build_synthesizer(
    config: DistillConfig, teacher: Teacher, *, streams: Streams, device: torch.device
) -> Synthesizer:
    """Build the synthesizer that `config.method` names."""
    build = implementation(config.method_options, sys.modules[__name__], Synthesizer)
    synthesizer: Synthesizer = build(config.method_options, teacher, streams=streams, device=device)
    return synthesizer
