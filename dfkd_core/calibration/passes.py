"""The speed of work that only passes over values: activations, normalisations, drawing and augmenting images, Adam."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.calibration.stopwatch import seconds_of
from dfkd_core.images.augment import augment
from dfkd_core.images.procedural import procedural_images
from dfkd_core.networks.batchnorm import channel_moments
from dfkd_core.planning.worker_speed import Pass
from dfkd_core.spec.config import Augmentation

_MAPS = (128, 32, 32, 32)  # feature maps (N, C, H, W); 17 MB, which no more stay in a cache than those of a run
_IMAGES = (128, 3, 32, 32)
_TRAINED = 500_000  # values of one tensor that Adam trains


def pass_speeds(device: torch.device) -> dict[Pass, float]:
    """Measure every pass: values a second."""
    return {
        **_activations(device),
        **_normalisations(device),
        **_images(device),
        Pass.ADAM: _TRAINED / seconds_of(_AdamStep(device), device),
    }


class _AdamStep:
    """One step of Adam, and of the running average that follows it."""

    def __init__(self, device: torch.device) -> None:
        self._trained = [torch.zeros(_TRAINED, device=device, requires_grad=True)]
        self._average = [torch.zeros(_TRAINED, device=device)]
        self._trained[0].grad = torch.ones(_TRAINED, device=device)
        self._optimizer = torch.optim.Adam(self._trained)

    @torch.no_grad()
    def __call__(self) -> None:
        self._optimizer.step()
        torch._foreach_lerp_(self._average, list(self._trained), 0.01)


def _maps(device: torch.device) -> Tensor:
    drawn = torch.randn(_MAPS, generator=torch.Generator().manual_seed(0)).to(device)
    return drawn.to(memory_format=torch.channels_last).requires_grad_(True)


def _activations(device: torch.device) -> dict[Pass, float]:
    maps = _maps(device)
    shown = torch.ones_like(maps)
    with torch.no_grad():
        forward = seconds_of(maps.relu, device)
    both = seconds_of(lambda: torch.autograd.grad(maps.relu(), [maps], shown), device)
    return {
        Pass.ACTIVATION: maps.numel() / forward,
        Pass.ACTIVATION_GRADIENT: maps.numel() / max(both - forward, forward / 4),
    }


def _normalisations(device: torch.device) -> dict[Pass, float]:
    maps, channels = _maps(device), _MAPS[1]
    scale = torch.ones(channels, device=device, requires_grad=True)
    mean, variance = torch.zeros(channels, device=device), torch.ones(channels, device=device)
    shown = torch.ones_like(maps)

    fixed = torch.ones(channels, device=device)

    def norm() -> Tensor:
        return F.batch_norm(maps, mean, variance, scale, scale, training=True)

    def frozen() -> Tensor:
        return F.batch_norm(maps, mean, variance, fixed, fixed, training=False)

    def moments() -> tuple[Tensor, ...]:
        read = channel_moments(maps)
        return torch.autograd.grad(read[0].sum() + read[1].sum(), [maps])

    with torch.no_grad():
        forward, frozen_forward = seconds_of(norm, device), seconds_of(frozen, device)
    both = seconds_of(lambda: torch.autograd.grad(norm(), [maps, scale], shown), device)
    frozen_both = seconds_of(lambda: torch.autograd.grad(frozen(), [maps], shown), device)
    return {
        Pass.NORM: maps.numel() / forward,
        Pass.NORM_GRADIENT: maps.numel() / max(both - forward, forward / 4),
        Pass.FROZEN_NORM: maps.numel() / frozen_forward,
        Pass.FROZEN_NORM_GRADIENT: maps.numel() / max(frozen_both - frozen_forward, frozen_forward / 4),
        Pass.MOMENTS: maps.numel() / seconds_of(moments, device),
    }


def _images(device: torch.device) -> dict[Pass, float]:
    generator = torch.Generator().manual_seed(0)
    count, *shape = _IMAGES
    low, high = torch.zeros((1, shape[0], 1, 1), device=device), torch.ones((1, shape[0], 1, 1), device=device)
    images = torch.rand(_IMAGES, generator=generator).to(device)
    kept = (images.cpu() * 255).byte()

    def drawn() -> Tensor:
        return procedural_images((shape[0], shape[1], shape[2]), count, generator=generator, device=device)

    def augmented() -> Tensor:
        return augment(images, Augmentation(), low=low, high=high, generator=generator)

    def gathered() -> Tensor:
        chosen = torch.randint(count, (count,), generator=generator)
        return (kept[chosen].float() / 255).to(device)

    calls = {Pass.DRAWN: drawn, Pass.AUGMENTED: augmented, Pass.GATHERED: gathered}
    with torch.no_grad():
        return {named: images.numel() / seconds_of(call, device) for named, call in calls.items()}
