"""DFAD. Fang, Song, Shen, Wang, Chen, Song: Data-Free Adversarial Distillation, 2019,
https://arxiv.org/abs/1912.11006.

A generator learns to make images on which the student's logits are far from the teacher's. For each update of the
generator the student is updated five times.

It is made of the terms that all generators share (torch-free): this file has its weights and published settings.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.generators import AdvWeight, BalanceWeight, Disagreement, TermOptions
from dfkd_core.options.published import Presets, published

PAPER: dict[str, Any] = published(
    {
        "budget": {"steps": 500 * 50 * 5},  # epochs, iterations, student steps of each
        "training": {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "decay": "cosine",  # published: constant, or a tenth after 100 and after 200 epochs
            "batch_size": 256,
            "updates_per_round": 5,
            "fresh_batches": 5,
            "loss": "l1",
        },
        "steadiness": {"min_class_entropy": 0.0, "min_diversity": 0.0},  # nothing in the loss asks for either
        "method_options": {
            "latent_dim": 256,
            "width": 64,
            "batch_size": 256,
            "learning_rate": 1e-3,
            "adv_weight": 1.0,
            "disagreement": "l1",
            "balance_weight": 0.0,
            "batchnorm_eps": 1e-5,
        },
    }
)
"""The settings of the official code for CIFAR-10."""


class DfadOptions(TermOptions):
    """DFAD's generator (Fang et al., 2019): its loss is the disagreement, with a small class balance term."""

    presets: ClassVar[Presets] = {"default": {"memory": "reservoir"}, "paper": PAPER}

    name: Literal["dfad"] = Field("dfad", exclude=True)
    adv_weight: AdvWeight = 1.0
    disagreement: Disagreement = "l1"
    balance_weight: BalanceWeight = 1.0  # published: 0
