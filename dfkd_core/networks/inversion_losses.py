"""Losses of image inversion: pure functions from tensors to one scalar. Logits are (N, num_classes)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.networks import losses


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
    return 1 - losses.disagreement("js", teacher_logits, student_logits, temperature=1.0).clamp(max=limit).mean()


def agreeing_kl(teacher_logits: Tensor, student_logits: Tensor, *, limit: float) -> Tensor:
    """Minus the batch mean of min(KL(teacher || student), limit) where both have the same class, else 0 (CMI)."""
    agrees = teacher_logits.argmax(dim=1) == student_logits.argmax(dim=1)
    each = losses.disagreement("kl", teacher_logits, student_logits, temperature=1.0)  # (N,)
    return -(agrees * each.clamp(max=limit)).mean()


def bounded_cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of rows (N, K) scaled to unit length, for each image: (N,). Logits in [−1, 1] bound it (CSD)."""
    return F.cross_entropy(F.normalize(outputs, dim=1), labels, reduction="none")


def info_nce(anchors: Tensor, positives: Tensor, *, temperature: float, new: int) -> Tensor:
    """Cross-entropy of each anchor (M, D) with its own positive (M, D) among all of them, by cosine similarity over
    `temperature`: the mean over the first `new` anchors plus that over the others, if any (CMI)."""
    similarity = F.normalize(anchors, dim=1) @ F.normalize(positives, dim=1).T / temperature
    each = F.cross_entropy(similarity, torch.arange(len(anchors), device=anchors.device), reduction="none")
    return torch.stack([part.mean() for part in (each[:new], each[new:]) if len(part)]).sum()


def modulated_cross_entropy(teacher_logits: Tensor, classes: Tensor, rarity: Tensor, *, focus: float) -> Tensor:
    """Batch mean of rarity · (1 − p)^focus · −log p, p the probability of the image's class; the factor before the
    cross-entropy is held fixed (SSD-KD). Classes and rarity are (N,)."""
    log_p = F.log_softmax(teacher_logits, dim=1).gather(1, classes.unsqueeze(1)).squeeze(1)
    factor = rarity * (1 - log_p.detach().exp()) ** focus
    return -(factor * log_p).mean()
