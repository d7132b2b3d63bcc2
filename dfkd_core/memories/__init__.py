"""Memories: ways to replay earlier images. Each memory has one file, named like the memory in the spec."""

import sys

import torch

from dfkd_core.memories.memory import Memory
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.registry import implementation
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig

__all__ = ["Memory", "build_memory"]


def build_memory(config: DistillConfig, teacher: Teacher, *, streams: Streams, device: torch.device) -> Memory:
    """Build the memory that `config.memory` names."""
    build = implementation(config.memory_options, sys.modules[__name__], Memory)
    memory: Memory = build(config.memory_options, teacher, streams=streams, device=device)
    return memory
