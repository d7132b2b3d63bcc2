"""Options and published settings of `mad` (torch-free)."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.field_types import Weight
from dfkd_core.options.generators import AdvLimit, AdvWeight, BalanceWeight, ConditionalOptions
from dfkd_core.options.published import Presets, published

PAPER: dict[str, Any] = published(
    {
        "memory": "ema",
        "budget": {"steps": 125_000},
        "training": {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "batch_size": 512,  # 256 of the generator, 256 of its average
            "updates_per_round": 5,
            "fresh_batches": 5,
            "replays_per_round": 5 * 256,
            "replay_share": 0.5,
            "final_replay_share": 0.5,
            "loss": "l1",
        },
        "steadiness": {"min_class_entropy": 0.0, "min_diversity": 0.0},  # nothing in the loss asks for either
        "method_options": {
            "latent_dim": 256,
            "width": 64,
            "batch_size": 256,
            "warmup_rounds": 100,
            "learning_rate": 1e-3,
            "betas": [0.5, 0.999],
            "adv_weight": 1.0,
            "adv_limit": 5.0,
            "bound_mode": "per_sample",
            "disagreement": "l1",
            "conditioning": "uncond",
            "nll_weight": 0.0,
            "norm_weight": 0.1,
            "warmup_nll_weight": 1.0,
            "balance_weight": 0.0,
            "batchnorm_eps": 1e-5,
        },
        "memory_options": {"decay": 0.95},
    }
)
"""For ten classes. No code was published: the bound, the warm-up and the steps are ours, the average's decay theirs."""

DEFAULT: dict[str, Any] = {"memory": "ema"}


class MadOptions(ConditionalOptions):
    """MAD's generator (Do et al., NeurIPS 2022): bounded disagreement; the paper's memory for it is `ema`."""

    presets: ClassVar[Presets] = {"default": DEFAULT, "paper-reconstructed": PAPER}

    name: Literal["mad"] = Field("mad", exclude=True)
    adv_weight: AdvWeight = 1.0
    adv_limit: AdvLimit = 5.0  # about an untrained student's distance from a teacher with logits around 5
    bound_mode: Literal["per_sample", "batch_mean"] = Field(
        "per_sample", description="What adv_limit bounds: every image's disagreement, or the mean over the batch."
    )
    disagreement: Literal["l1", "kl"] = Field("l1", description="l1: mean |logit difference|; kl: KL(t || s).")
    conditioning: Literal["uncond", "sum", "cat"] = Field(
        "uncond", description="How the class's learnt embedding joins the noise: not at all, added, or behind it."
    )
    nll_weight: Weight = Field(
        0.0, description="Weight of CE(t, class that was asked for); argmax t without one. For many classes: 1."
    )
    warmup_nll_weight: Weight = Field(1.0, description="The same in the warm-up, which nothing else would teach.")
    balance_weight: BalanceWeight = 1.0  # published: 0
