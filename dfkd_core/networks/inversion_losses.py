"""Losses of image inversion: pure functions from tensors to one scalar. Logits are (N, num_classes)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.networks import losses


def soft_cross_entropy(teacher_logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return minus the sum of target times log softmax(logits / temperature), batch mean.

    `targets` are probabilities (N, num_classes).
    """
    return -(targets * F.log_softmax(teacher_logits / temperature, dim=1)).sum(dim=1).mean()


def variation_norm(images: Tensor) -> Tensor:
    """Return the sum of four L2 norms over the whole batch (DeepInversion, eq. 3 as released).

    They are the norms of the differences between each pixel and its neighbours below, beside and on both diagonals.
    `images` is (N, C, H, W).
    """
    down, across = images[:, :, 1:] - images[:, :, :-1], images[:, :, :, 1:] - images[:, :, :, :-1]
    falling = images[:, :, 1:, 1:] - images[:, :, :-1, :-1]
    rising = images[:, :, 1:, :-1] - images[:, :, :-1, 1:]
    return torch.stack([torch.linalg.vector_norm(part) for part in (down, across, falling, rising)]).sum()


def image_norm(images: Tensor) -> Tensor:
    """Return the mean over the batch of each image's L2 norm; `images` is (N, C, H, W)."""
    norms: Tensor = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return norms.mean()


def limited_js(teacher_logits: Tensor, student_logits: Tensor, *, limit: float) -> Tensor:
    """Return 1 − mean of min(JS, limit). JS lies in [0, 1]. An image beyond the limit has no gradient."""
    return 1 - losses.disagreement("js", teacher_logits, student_logits, temperature=1.0).clamp(max=limit).mean()


def agreeing_kl(teacher_logits: Tensor, student_logits: Tensor, *, limit: float) -> Tensor:
    """Return minus the batch mean of min(KL(teacher || student), limit) (CMI).

    An image to which teacher and student give different classes counts as 0.
    """
    agrees = teacher_logits.argmax(dim=1) == student_logits.argmax(dim=1)
    each = losses.disagreement("kl", teacher_logits, student_logits, temperature=1.0)  # (N,)
    return -(agrees * each.clamp(max=limit)).mean()


def bounded_cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each row of `outputs` (N, K), scaled to unit length: (N,).

    The scaled outputs lie in [−1, 1], which bounds the cross-entropy (CSD).
    """
    return F.cross_entropy(F.normalize(outputs, dim=1), labels, reduction="none")


def info_nce(anchors: Tensor, positives: Tensor, *, temperature: float, new: int) -> Tensor:
    """Return the cross-entropy of choosing each anchor's own positive among all positives, both (M, D) (CMI).

    The logits are cosine similarities divided by `temperature`. The result is the mean over the first `new` anchors
    plus the mean over the other anchors, if there are any.
    """
    similarity = F.normalize(anchors, dim=1) @ F.normalize(positives, dim=1).T / temperature
    each = F.cross_entropy(similarity, torch.arange(len(anchors), device=anchors.device), reduction="none")
    return torch.stack([part.mean() for part in (each[:new], each[new:]) if len(part)]).sum()


def modulated_cross_entropy(teacher_logits: Tensor, classes: Tensor, rarity: Tensor, *, focus: float) -> Tensor:
    """Return the batch mean of rarity · (1 − p)^focus · −log p (SSD-KD).

    p is the probability of the image's class. The factor before log p has no gradient. `classes` and `rarity` are (N,).
    """
    log_p = F.log_softmax(teacher_logits, dim=1).gather(1, classes.unsqueeze(1)).squeeze(1)
    factor = rarity * (1 - log_p.detach().exp()) ** focus
    return -(factor * log_p).mean()
