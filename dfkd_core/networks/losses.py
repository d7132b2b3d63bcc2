"""Losses: pure functions from tensors to one scalar. Logits are (N, num_classes); every log is natural unless named.

Sections refer to PRE-DFKD (Binici, Aggarwal, Pham, Leman, Mitra: *Robust and Resource-Efficient Data-Free Knowledge
Distillation by Generative Pseudo Replay*, AAAI 2022, arXiv 2201.03019) and to the code released with it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Disagreement = Literal["js", "pseudo_js", "l1", "kl"]

PSEUDO_JS_CLIP = 0.01  # the released code clips probabilities to [0.01, 0.99]
LEAST_DISTANCE = 1e-20  # lower bound of the squared distance of two images, which may be equal
LEAST_VARIANCE = 1e-12  # lower bound of the variance of features, which may be constant
CACHED = 2**17  # values of two maps that are compared at a time; so many stay in the caches of two cores
DULL = 0.01  # share of the mean variance below which the variance of a channel does not count as less


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
    return negative_entropy(teacher_logits) / math.log(10)


def negative_entropy(teacher_logits: Tensor) -> Tensor:
    """Sum over classes of p̄ ln p̄ with p̄ the batch mean of softmax: −ln(num_classes) at best."""
    log_mean = F.log_softmax(teacher_logits, dim=1).logsumexp(dim=0) - math.log(len(teacher_logits))
    return (log_mean.exp() * log_mean).sum()


def activation(features: Tensor) -> Tensor:
    """Minus the mean |feature| over batch and dimensions; features are (N, F)."""
    return -features.abs().mean()


def js_divergence(teacher_logits: Tensor, student_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Jensen–Shannon divergence of the two softmaxes, batch mean, divided by ln 2 so that it lies in [0, 1]."""
    return disagreement("js", teacher_logits, student_logits, temperature=temperature).mean()


def pseudo_js(teacher_logits: Tensor, student_logits: Tensor, *, temperature: float = 3.0) -> Tensor:
    """Return the disagreement of the released code: (KL(M || P) + KL(M || Q)) / 2, with M = (P + Q) / 2.

    P, Q and M are clipped after M is formed, and the mean runs over the classes as well as over the batch. The value is
    at most 0.1614 for 10 classes and 0.01614 for 100 classes. The value can be slightly negative.
    """
    return disagreement("pseudo_js", teacher_logits, student_logits, temperature=temperature).mean()


def disagreement(kind: Disagreement, teacher_logits: Tensor, student_logits: Tensor, *, temperature: float) -> Tensor:
    """Return how far the student is from the teacher on each image, (N,).

    `js` and `pseudo_js` are the functions above, `l1` is the mean |logit difference| over classes, and `kl` is
    KL(teacher || student) at `temperature`, times temperature².
    """
    if kind == "l1":
        return (student_logits - teacher_logits).abs().mean(dim=1)
    if kind == "pseudo_js":
        return _pseudo_js(teacher_logits / temperature, student_logits / temperature)
    log_p = F.log_softmax(teacher_logits / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    if kind == "kl":
        return torch.sum(log_p.exp() * (log_p - log_q), dim=1) * temperature**2
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    divergence = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)  # (N, num_classes)
    return torch.sum(divergence, dim=1) / (2 * math.log(2))


def _pseudo_js(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    p, q = teacher_logits.softmax(dim=1), student_logits.softmax(dim=1)
    m = (p + q) / 2
    p, q, m = (value.clamp(PSEUDO_JS_CLIP, 1 - PSEUDO_JS_CLIP) for value in (p, q, m))
    return torch.mean(m * (m.log() - p.log()) + m * (m.log() - q.log()), dim=1) / 2


def bounded_mean(values: Tensor, limit: float | None, *, per_sample: bool) -> Tensor:
    """Return the mean of values (N,), clamped to [0, limit]; a clamped value has no gradient.

    If `per_sample` is True, each value is clamped before the mean is taken; otherwise the mean itself is clamped.
    """
    return values.clamp(0, limit).mean() if per_sample else values.mean().clamp(0, limit)


def norm_excess(embeddings: Tensor) -> Tensor:
    """Return the mean over classes of max(0, ‖e‖₂ − √d); embeddings e are (num_classes, d).

    √d is about the norm of normal noise of length d, so that only embeddings longer than noise are penalised.
    """
    norms: Tensor = torch.linalg.vector_norm(embeddings, dim=1)  # (num_classes,)
    return (norms - math.sqrt(embeddings.shape[1])).clamp(min=0).mean()


def diversity_ratio(images: Tensor, teacher_logits: Tensor, *, per_pair: bool) -> Tensor:
    """Return ‖p₂ − p₁‖ / ‖x₂ − x₁‖, where p₁, p₂ are the softmaxes of the halves x₁, x₂ of a batch (RDSKD, 2011.03749).

    If `per_pair` is True, the ratio is averaged over the N/2 pairs. Otherwise it is one ratio of Frobenius norms over
    the half batch, as in the released code.
    """
    half = len(images) // 2
    p = teacher_logits.softmax(dim=1)
    answers = p[half : 2 * half] - p[:half]  # (N/2, num_classes)
    pixels = (images[half : 2 * half] - images[:half]).flatten(1)  # (N/2, C H W)
    if not per_pair:
        answers, pixels = answers.view(1, -1), pixels.view(1, -1)
    apart: Tensor = torch.linalg.vector_norm(answers, dim=1)  # (N/2,), or (1,)
    away: Tensor = torch.linalg.vector_norm(pixels, dim=1)
    return (apart / away.clamp(min=LEAST_DISTANCE)).mean()


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


def unexplained(guess: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error of `guess` divided by the mean variance of `wanted`, both (N, F).

    The value is 1 if the guess is the mean. It is the regression loss of FitNets (Romero et al., ICLR 2015, eq. 2),
    made independent of the features' scale.
    """
    variance = wanted.var(dim=0, correction=0).mean()
    return (guess - wanted).square().mean() / variance.clamp(min=LEAST_VARIANCE)


def unexplained_channels(guess: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean over channels of the mean squared error divided by the channel's variance, both (N, C, H, W).

    Where `guess` has more images than `wanted`, the first ones are compared. Channels that hardly vary are measured by
    a hundredth of the mean variance. The result is in float32, whatever the precision of the maps; `wanted` gets no
    gradient.
    """
    if guess.device.type == "cpu":
        return _Unexplained.apply(guess, wanted)  # type: ignore[no-any-return, no-untyped-call]
    guess, wanted = guess[: len(wanted)].float(), wanted.detach().float()
    variance = wanted.var(dim=(0, 2, 3), correction=0)
    error = (guess - wanted).square().mean(dim=(0, 2, 3))
    return (error * _weights(variance)).sum()


def _weights(variance: Tensor) -> Tensor:
    """Return the weights (C,) of the squared errors of channels whose variances are (C,)."""
    least = (DULL * variance.mean()).clamp(min=LEAST_VARIANCE)
    return 1 / (variance.clamp(min=least) * len(variance))


class _Unexplained(torch.autograd.Function):
    """`unexplained_channels`, a few rows of pixels at a time, which stay in the cache between its steps.

    On a CPU, whole maps go to memory and back for each step, and the variance of maps in channels-last order is slow.
    So is a BatchNorm with a gradient in another order, which that of a slice of the images has.
    """

    @staticmethod
    def forward(ctx: Any, guess: Tensor, wanted: Tensor) -> Tensor:
        ours, theirs = _rows(guess[: len(wanted)]), _rows(wanted)
        count, channels = ours.shape
        at_a_time = max(1, CACHED // channels)
        ones = torch.ones(1, at_a_time)
        sums = torch.zeros(3, channels, dtype=torch.float64)  # of what is wanted, of its squares, of squared errors
        for own, their in zip(_parts(ours, at_a_time), _parts(theirs, at_a_time), strict=True):
            values = their.float()
            error, each = own.float() - values, ones[:, : len(values)]
            sums += torch.cat([each @ values, each @ values.square(), each @ error.square_()])
        mean, square, error = sums / count
        weights = _weights((square - mean.square()).clamp(min=0))
        ctx.save_for_backward(guess, wanted, (weights / count).float())
        found: Tensor = (error * weights).sum().float()
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        guess, wanted, weights = ctx.saved_tensors
        result = torch.empty_like(guess, memory_format=torch.channels_last)
        at_a_time, factor = max(1, CACHED // guess.shape[1]), 2 * gradient * weights
        result[len(wanted) :] = 0
        rows = (_parts(_rows(maps[: len(wanted)]), at_a_time) for maps in (guess, wanted, result))
        for own, their, out in zip(*rows, strict=True):
            out.copy_((own.float() - their.float()).mul_(factor))
        return result, None


def _parts(rows: Tensor, at_a_time: int) -> Sequence[Tensor]:
    return torch.split(rows, at_a_time)


def _rows(maps: Tensor) -> Tensor:
    """Return maps (N, C, H, W) as one row of channels for each pixel: (N H W, C).

    Maps in channels-last order are not copied.
    """
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def attention_distance(maps: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Sum over pairs of feature maps (N, C, H, W) of the squared distance of their attentions, batch mean.

    Attention is the mean square over channels, as a vector of unit length (Zagoruyko and Komodakis, ICLR 2017, eq. 2).
    The two maps of a pair may differ in channels.
    """
    terms = [(_attention(ours) - _attention(theirs)).square().sum(dim=1).mean() for ours, theirs in maps]
    return torch.stack(terms).sum()


def _attention(maps: Tensor) -> Tensor:
    return F.normalize(maps.square().mean(dim=1).flatten(1), dim=1)


def kld_from_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp logvar) || N(0, I)), summed over the code, batch mean; mu and logvar are (N, latent_dim)."""
    return (-0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(dim=1)).mean()


def standard_normal_moments(z: Tensor) -> Tensor:
    """Mean over dimensions of (batch variance − 1)² plus that of (batch mean)²; z is (N, latent_dim)."""
    return (z.var(dim=0) - 1).square().mean() + z.mean(dim=0).square().mean()


def weighted_sum(terms: Mapping[str, tuple[float, Tensor]]) -> Tensor:
    """Return the sum of weight times value over the named terms."""
    return torch.stack([weight * value for weight, value in terms.values()]).sum()
