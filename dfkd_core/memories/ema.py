"""EMA memory: a moving average of the generator replays the generator's earlier images. Do, Le, Nguyen, Nguyen,
Harikumar, Tran, Rana, Venkatesh: Momentum Adversarial Distillation: Handling Large Distribution Shifts in Data-Free
Knowledge Distillation, NeurIPS 2022, https://arxiv.org/abs/2209.10359.

The memory stores no images and trains nothing. The average reaches about 1 / (1 - decay) updates back: it smooths the
generator's recent updates and does not remember its first ones.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfkd_core.images.batch import Batch
from dfkd_core.memories.memory import Memory
from dfkd_core.methods.parts.synthesizer import Synthesizer
from dfkd_core.networks.generators import ConditionalGenerator, Generator
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.memories.ema import EmaOptions
from dfkd_core.rng import Streams


class EmaMemory(Memory):
    """Keeps the averaged generator.

    The average replays with batch statistics, like the generator; its buffers stay copies of the generator's.
    """

    def __init__(self, options: EmaOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        self._options = options
        self._teacher = teacher
        self._source: Generator | ConditionalGenerator | None = None
        self.network: Generator | ConditionalGenerator | None = None

    @torch.no_grad()
    def on_generator_update(self, synthesizer: Synthesizer) -> None:
        """Move the average towards the generator and copy the generator's buffers; copy a new generator whole."""
        source = synthesizer.generator
        if source is None and self.network is not None:
            return  # the fallback method has no generator; the last average goes on replaying
        if source is None:
            raise TypeError(f"{type(synthesizer).__name__} has no generator to follow")
        if self.network is None or source is not self._source:
            self._source, self.network = source, copy.deepcopy(source).requires_grad_(False)
            return
        average = self.network
        torch._foreach_lerp_(list(average.parameters()), list(source.parameters()), 1 - self._options.decay)
        for kept, current in zip(average.buffers(), source.buffers(), strict=True):
            kept.copy_(current)

    def remember(self, fresh: Batch) -> dict[str, Tensor]:
        """Keep nothing; the average follows the generator, not its images."""
        return {}

    @torch.no_grad()
    def replay(self, count: int, *, generator: torch.Generator) -> Batch | None:
        """Generate new images with the averaged generator and the statistics of this batch."""
        if self.network is None:
            return None
        kept = [buffer.clone() for buffer in self.network.buffers()]
        inputs = self.network.inputs(max(2, count), generator=generator)
        try:
            images: Tensor = self._teacher.engine.in_chunks(self.network.train(), *inputs)[:count]
        finally:  # train mode has moved the running statistics, of an abandoned replay too
            for buffer, before in zip(self.network.buffers(), kept, strict=True):
                buffer.copy_(before)
        return Batch(images=images, teacher_logits=self._teacher.label(images))

    @property
    def num_bytes(self) -> int:
        """Bytes of the averaged generator."""
        if self.network is None:
            return 0
        tensors = [*self.network.parameters(), *self.network.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def state(self) -> dict[str, Any]:
        """Return the weights of the averaged generator."""
        return {"network": self.network.state_dict() if self.network is not None else None}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier average; `on_generator_update` must have been called before."""
        if self.network is not None and state["network"] is not None:
            self.network.load_state_dict(state["network"])
