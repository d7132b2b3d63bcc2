"""DDAD. Zhao, Sun, Dong, Yu, Zhou: Dual Discriminator Adversarial Distillation for Data-Free Model Compression,
2021, https://arxiv.org/abs/2104.05382.

The teacher's BatchNorm statistics judge whether images look like those it was trained on; the student's disagreement
says which of them it still has to learn.

It is made of the terms that all generators share (torch-free): this file has its weights and published settings.
"""

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
        "budget": {"steps": 500 * 50 * 5},
        "training": {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "batch_size": 256,
            "updates_per_round": 5,
            "fresh_batches": 5,
            "loss": "l1",
        },
        "method_options": {
            "latent_dim": 256,
            "width": 64,
            "batch_size": 256,
            "learning_rate": 1e-3,
            "onehot_weight": 1.0,
            "balance_weight": 0.0,
            "bn_weight": 1.0,
            "adv_weight": 1.0,
            "disagreement": "l1",
            "batchnorm_eps": 1e-5,
        },
    }
)
"""No code was published: the loss is the paper's, the rest that of DFAD."""


class DdadOptions(TermOptions):
    """DDAD's generator (Zhao et al., 2021): BatchNorm statistics against the student's disagreement."""

    needs: ClassVar[frozenset[str]] = frozenset({"batchnorm"})

    presets: ClassVar[Presets] = {"default": {"memory": "reservoir"}, "paper-reconstructed": PAPER}

    name: Literal["ddad"] = Field("ddad", exclude=True)
    onehot_weight: OnehotWeight = 1.0
    balance_weight: BalanceWeight = 1.0  # published: 0
    bn_weight: BatchNormWeight = 1.0
    adv_weight: AdvWeight = 1.0
    disagreement: Disagreement = "l1"
