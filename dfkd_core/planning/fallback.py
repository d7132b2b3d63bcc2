"""Fallback: the options of a method that takes over in a run whose numbers were resolved for another method."""

from dfkd_core.options.base import SynthesisOptions
from dfkd_core.options.images import ImageOptions
from dfkd_core.spec.config import DistillConfig

SMALLEST_BATCH = 32
WARM_UP_SHARE = 0.27  # image steps of the warm-up for each image of a student update, at most; usual runs stay below it


def fallback_options(config: DistillConfig, method: str) -> SynthesisOptions:
    """Return the default options of `method`, with batches and a warm-up that fit a run of the size of `config`."""
    usual, training = DistillConfig.model_validate({"method": method}).method_options, config.training
    batch_size = min(usual.batch_size, max(SMALLEST_BATCH, training.batch_size))
    changes = {"batch_size": batch_size}
    if isinstance(usual, ImageOptions):
        paid = WARM_UP_SHARE * config.budget.steps * training.batch_size
        changes["warmup_rounds"] = max(1, min(usual.warmup_rounds, int(paid // (batch_size * usual.steps))))
    return usual.model_copy(update=changes)
