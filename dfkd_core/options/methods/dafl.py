"""DAFL. Chen, Wang, Xu, Yang, Liu, Shi, Xu, Xu, Tian: Data-Free Learning of Student Networks, ICCV 2019,
https://arxiv.org/abs/1904.01186.

A generator learns to make images that the teacher classifies with confidence, that are balanced over the classes and
that activate the teacher's features. The student has no part in the generator's loss.

It is made of the terms that all generators share (torch-free): this file has its weights and published settings.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.generators import ActivationWeight, BalanceWeight, OnehotWeight, TermOptions
from dfkd_core.options.published import Presets, published

PAPER: dict[str, Any] = published(
    {
        "budget": {"steps": 2000 * 120},  # epochs, iterations
        "training": {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "decay": "cosine",  # published: a tenth after 800 and after 1600 epochs
            "batch_size": 1024,
            "loss": "kl",
            "temperature": 1.0,
        },
        "method_options": {
            "latent_dim": 1000,
            "width": 64,
            "batch_size": 1024,
            "learning_rate": 0.02,
            "onehot_weight": 0.05,
            "balance_weight": 5.0,
            "activation_weight": 0.01,
            "batchnorm_eps": 0.8,
        },
    }
)
"""The settings of the official code for CIFAR-10."""


class DaflOptions(TermOptions):
    """DAFL's generator (Chen et al., ICCV 2019): settings and loss weights."""

    presets: ClassVar[Presets] = {"default": {"memory": "reservoir"}, "paper": PAPER}

    name: Literal["dafl"] = Field("dafl", exclude=True)
    onehot_weight: OnehotWeight = 1.0
    balance_weight: BalanceWeight = 5.0
    activation_weight: ActivationWeight = 0.1
