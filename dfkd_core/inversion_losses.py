"""Losses of image inversion: pure functions from tensors to one scalar. Logits are (N, num_classes)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core import losses


def soft_cross_entropy(teacher_logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Minus the sum of target times log softmax(logits / temperature), batch mean; targets are (N, num_classes)."""
    return -(targets * F.log_softmax(teacher_logits / temperature, dim=1)).sum(dim=1).mean()


def variation_norm(images: Tensor) -> Tensor:
    """Sum of the L2 norms, over the whole batch, of the differences to the neighbours below, beside and on both
    diagonals (DeepInversion, eq. 3 as released); images are (N, C, H, W)."""
    down, across = images[:, :, 1:] - images[:, :, :-1], images[:, :, :, 1:] - images[:, :, :, :-1]
    falling = images[:, :, 1:, 1:] - images[:, :, :-1, :-1]
    rising = images[:, :, 1:, :-1] - images[:, :, :-1, 1:]
    return torch.stack([torch.linalg.vector_norm(part) for part in (down, across, falling, rising)]).sum()


def image_norm(images: Tensor) -> Tensor:
    """Mean over the batch of an image's L2 norm."""
    norms: Tensor = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return norms.mean()


def limited_js(teacher_logits: Tensor, student_logits: Tensor, *, limit: float) -> Tensor:
    """1 − mean of min(JS, limit): beyond the limit an image is not pushed further. JS lies in [0, 1]."""
    return 1 - losses.js_of_each(teacher_logits, student_logits).clamp(max=limit).mean()


def agreeing_kl(teacher_logits: Tensor, student_logits: Tensor, *, limit: float) -> Tensor:
    """Minus the batch mean of min(KL(teacher || student), limit) where both have the same class, else 0 (CMI)."""
    log_p, log_q = F.log_softmax(teacher_logits, dim=1), F.log_softmax(student_logits, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    agrees = teacher_logits.argmax(dim=1) == student_logits.argmax(dim=1)
    return -(agrees * divergence.clamp(max=limit)).mean()
