"""Mixture: which images the student meets, and in which form; in training and where BatchNorms are re-estimated."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_core.images.augment import augment
from dfkd_core.images.batch import Batch
from dfkd_core.loop.state import Run


@dataclass(frozen=True, slots=True)
class Pools:
    """Images of the last rounds, each kind in one piece."""

    fresh: Batch
    remembered: Batch | None

    @staticmethod
    def of(run: Run) -> "Pools":
        """Those of a run as it is now."""
        return Pools(Batch.join(*run.fresh), Batch.join(*run.remembered) if run.remembered else None)


def mixed(run: Run, pools: Pools, size: int, *, generator: torch.Generator) -> Batch:
    """A student batch: procedural and remembered images in the shares that config and schedule say, fresh ones else.

    The procedural ones come first.
    """
    parts = []
    drawn = num_procedural(run, size)
    refined = min(round(drawn * run.config.procedural.refinement.share), drawn) if len(run.refined) else 0
    for bank, count in (run.procedural, drawn - refined), (run.refined, refined):
        if count:
            parts.append(bank.sample(count, generator=generator))
    old = round((size - drawn) * run.schedule.replay_share_at(run.counters.steps)) if pools.remembered else 0
    parts.append(_picked(pools.fresh, size - drawn - old, generator))
    if pools.remembered:
        parts.append(_picked(pools.remembered, old, generator))
    return Batch.join(*parts)


def num_procedural(run: Run, size: int) -> int:
    """How many images of a student batch are procedural."""
    return round(size * run.config.procedural.share)


def num_featured(run: Run, size: int) -> int:
    """On how many images of a student batch features are compared: not on those of a generator that persists."""
    return size if run.synthesizer.optimises_images else num_procedural(run, size)


def as_seen(run: Run, images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) augmented and in the valid pixel range, as `training` says."""
    changed = augment(images, run.config.training.augmentation, low=run.low, high=run.high, generator=generator)
    return run.valid(changed)


def _picked(batch: Batch, count: int, generator: torch.Generator) -> Batch:
    chosen = torch.randint(len(batch), (count,), generator=generator).to(batch.images.device)
    return Batch(images=batch.images[chosen], teacher_logits=batch.teacher_logits[chosen])
