"""A student's logits on a batch of images, computed in chunks."""

import torch
from torch import Tensor, nn

from dfkd_core.images.batch import Batch
from dfkd_core.networks.hooks import evaluating

CHUNK = 512


@torch.no_grad()
def answers(student: nn.Module, batch: Batch) -> Tensor:
    """Return the student's logits (N, num_classes) in eval mode, on the CPU, and restore the student's mode."""
    device = next(student.parameters()).device
    with evaluating(student):
        return torch.cat([student(images.to(device)).cpu() for images in torch.split(batch.images, CHUNK)])
