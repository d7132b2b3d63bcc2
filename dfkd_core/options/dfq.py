"""Options and published settings of `dfq` (torch-free)."""

import math
from typing import Any, Literal

from pydantic import Field

from dfkd_core.options.generators import (
    AdvWeight,
    BalanceWeight,
    BatchNormWeight,
    Disagreement,
    OnehotWeight,
    TermOptions,
)
from dfkd_core.options.published import published


class DfqOptions(TermOptions):
    """DFQ's generator (Choi et al., 2020): settings and loss weights."""

    name: Literal["dfq"] = Field("dfq", exclude=True)
    onehot_weight: OnehotWeight = 1.0
    balance_weight: BalanceWeight = 5.0
    bn_weight: BatchNormWeight = 1.0
    adv_weight: AdvWeight = 1.0
    disagreement: Disagreement = "kl"


PAPER: dict[str, Any] = published(
    {
        "budget": {"steps": 200 * 400},  # epochs, student steps of each
        "training": {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "decay": "cosine",  # published: a tenth after 120, 150 and 180 epochs
            "batch_size": 256,
            "updates_per_round": 10,
            "fresh_batches": 10,
            "loss": "kl",
            "temperature": 1.0,
        },
        "method_options": {
            "latent_dim": 256,
            "width": 64,
            "batch_size": 256,
            "learning_rate": 1e-3,
            "betas": [0.5, 0.999],
            "onehot_weight": 1.0,
            "balance_weight": 20 * math.log(10),  # there in natural logarithms
            "bn_weight": 1.0,
            "adv_weight": 1.0,
            "disagreement": "kl",
            "temperature": 1.0,
            "batchnorm_eps": 1e-5,
            "output": "bounded",
        },
    }
)
"""Of the re-implementation beside CMI (Fang et al., IJCAI 2021) for CIFAR-10; that of the authors quantises too."""

PRESETS: dict[str, dict[str, Any]] = {"default": {"memory": "reservoir"}, "paper": PAPER}
