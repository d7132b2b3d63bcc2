"""A student's logits on a batch of images, computed in chunks."""

import torch
from torch import Tensor, nn

from dfkd_core.images.batch import Labelled
from dfkd_core.networks.hooks import evaluating
from dfkd_core.networks.precision import Engine

CHUNK = 512  # images at a time, where the engine sets no lower limit


@torch.no_grad()
def answers(student: nn.Module, batch: Labelled, *, engine: Engine | None = None) -> Tensor:
    """Return the student's logits (N, num_classes) in eval mode, on the CPU, and restore the student's mode.

    They are computed in fp32. `engine` limits the images that are computed at a time, and hears a beat after each
    chunk.
    """
    engine = engine or Engine()
    return torch.cat([answer(student, images, engine=engine) for images in batch.split(chunk_of(engine))])


def chunk_of(engine: Engine) -> int:
    """Return how many images a student is asked about at a time."""
    return engine.compute.at_a_time(CHUNK)


@torch.no_grad()
def answer(student: nn.Module, images: Tensor, *, engine: Engine) -> Tensor:
    """Return the student's logits (N, num_classes) for one chunk of images (N, C, H, W), as `answers` does."""
    device = next(student.parameters()).device
    with evaluating(student):
        logits: Tensor = engine.in_fp32()(student, images.to(device))
    return logits.cpu()
