"""Memories: ways to replay the past. One file each; the file's name is the memory's name on the wire."""

import torch

from dfkd_core.memories.ema import EmaMemory
from dfkd_core.memories.memory import Memory
from dfkd_core.memories.none import NoMemory
from dfkd_core.memories.priority import PriorityMemory
from dfkd_core.memories.reservoir import ReservoirMemory
from dfkd_core.memories.ring import RingMemory
from dfkd_core.memories.vae import VaeMemory
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options import EmaOptions, NoMemoryOptions, PriorityOptions, ReservoirOptions, RingOptions, VaeOptions
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig

__all__ = ["Memory", "build_memory"]


def build_memory(config: DistillConfig, teacher: Teacher, *, streams: Streams, device: torch.device) -> Memory:
    """The memory that `config.memory` names."""
    match config.memory_options:
        case EmaOptions() as options:
            return EmaMemory(options, teacher, streams=streams, device=device)
        case NoMemoryOptions() as options:
            return NoMemory(options, teacher, streams=streams, device=device)
        case PriorityOptions() as options:
            return PriorityMemory(options, teacher, streams=streams, device=device)
        case ReservoirOptions() as options:
            return ReservoirMemory(options, teacher, streams=streams, device=device)
        case RingOptions() as options:
            return RingMemory(options, teacher, streams=streams, device=device)
        case VaeOptions() as options:
            return VaeMemory(options, teacher, streams=streams, device=device)
