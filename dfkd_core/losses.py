"""Losses: pure functions from tensors to one scalar. Logits are (N, num_classes); every log is natural unless named.

Sections refer to PRE-DFKD (Binici, Aggarwal, Pham, Leman, Mitra: *Robust and Resource-Efficient Data-Free Knowledge
Distillation by Generative Pseudo Replay*, AAAI 2022, arXiv 2201.03019) and to the code released with it.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PSEUDO_JS_CLIP = 0.01  # the released code clips probabilities to [0.01, 0.99]


def logit_l1(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean |student - teacher| over batch and classes: the student's loss in the released code."""
    return (student_logits - teacher_logits).abs().mean()


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """KL(teacher || student) at `temperature`, batch mean, times temperature² (Hinton et al., 2015)."""
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    log_p = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def onehot(teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of the logits with their own argmax, batch mean: small where the teacher is confident."""
    return F.cross_entropy(teacher_logits, teacher_logits.argmax(dim=1))


def class_balance(teacher_logits: Tensor) -> Tensor:
    """Sum over classes of p̄ log10 p̄ with p̄ the batch mean of softmax: −log10(num_classes) at best."""
    log_mean = F.log_softmax(teacher_logits, dim=1).logsumexp(dim=0) - math.log(len(teacher_logits))
    return (log_mean.exp() * log_mean).sum() / math.log(10)


def activation(features: Tensor) -> Tensor:
    """Minus the mean |feature| over batch and dimensions; features are (N, F)."""
    return -features.abs().mean()


def js_divergence(teacher_logits: Tensor, student_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Jensen–Shannon divergence of the two softmaxes, batch mean, divided by ln 2 so that it lies in [0, 1]."""
    return js_of_each(teacher_logits, student_logits, temperature=temperature).mean()


def js_of_each(teacher_logits: Tensor, student_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """The same for each image: (N,)."""
    log_p = F.log_softmax(teacher_logits / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    divergence = (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(dim=1) / 2
    return divergence / math.log(2)


def pseudo_js(teacher_logits: Tensor, student_logits: Tensor, *, temperature: float = 3.0) -> Tensor:
    """The disagreement as released: P, Q and M clipped after M is formed, M against P and Q, mean over classes too.

    At most 0.1614 for 10 classes and 0.01614 for 100; it can be slightly negative.
    """
    p = (teacher_logits / temperature).softmax(dim=1)
    q = (student_logits / temperature).softmax(dim=1)
    m = (p + q) / 2
    p, q, m = (value.clamp(PSEUDO_JS_CLIP, 1 - PSEUDO_JS_CLIP) for value in (p, q, m))
    return (m * (m.log() - p.log()) + m * (m.log() - q.log())).mean() / 2


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, down plus across; images are (N, C, H, W)."""
    down = (images[:, :, 1:] - images[:, :, :-1]).abs()
    across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs()
    return torch.stack([diff.mean() for diff in (down, across) if diff.numel()] or [images.sum() * 0]).sum()


def batchnorm_distance(moments: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Tensor:
    """Sum over layers of ‖mean − running mean‖₂ + ‖variance − running variance‖₂ (DeepInversion, eq. 4, 1912.08795).

    `moments` holds, for each layer, batch mean, batch variance, running mean, running variance, each (channels,).
    """
    layers = [
        torch.linalg.vector_norm(mean - running_mean) + torch.linalg.vector_norm(variance - running_variance)
        for mean, variance, running_mean, running_variance in moments
    ]
    return torch.stack(layers).sum()


def kld_from_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp logvar) || N(0, I)), summed over the code, batch mean; mu and logvar are (N, latent_dim)."""
    return (-0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(dim=1)).mean()


def standard_normal_moments(z: Tensor) -> Tensor:
    """Mean over dimensions of (batch variance − 1)² plus that of (batch mean)²; z is (N, latent_dim)."""
    return (z.var(dim=0) - 1).square().mean() + z.mean(dim=0).square().mean()


def weighted_sum(terms: Mapping[str, tuple[float, Tensor]]) -> Tensor:
    """Sum of weight times value over the named terms."""
    return torch.stack([weight * value for weight, value in terms.values()]).sum()
