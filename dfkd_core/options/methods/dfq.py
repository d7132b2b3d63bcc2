"""DFQ. Choi, Choi, El-Khamy, Lee: Data-Free Network Quantization With Adversarial Knowledge Distillation, CVPR
workshops 2020, https://arxiv.org/abs/2005.04136.

The loss has DAFL's confidence and balance terms, a BatchNorm term in place of DAFL's activation term, and the student's
disagreement. Unlike the paper, nothing is quantised here.

It is made of the terms that all generators share (torch-free): this file has its weights and published settings.
"""

import math
from typing import Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.generators import (
    AdvWeight,
    BalanceWeight,
    BatchNormWeight,
    Disagreement,
    OnehotWeight,
    TermOptions,
)
from dfkd_core.options.published import Presets, published

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
"""Settings of the re-implementation in CMI's repository (Fang et al., IJCAI 2021) for CIFAR-10. The authors' own code
quantises the student as well.
"""


class DfqOptions(TermOptions):
    """DFQ's generator (Choi et al., 2020): settings and loss weights."""

    presets: ClassVar[Presets] = {"default": {"memory": "reservoir"}, "paper": PAPER}

    name: Literal["dfq"] = Field("dfq", exclude=True)
    onehot_weight: OnehotWeight = 1.0
    balance_weight: BalanceWeight = 5.0
    bn_weight: BatchNormWeight = 1.0
    adv_weight: AdvWeight = 1.0
    disagreement: Disagreement = "kl"
