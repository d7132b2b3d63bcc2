"""CGDD. Yu, Yan, Yang, Zhou, Ou: Conditional Generative Data-Free Knowledge Distillation, 2021,
https://arxiv.org/abs/2112.15358.

The generator receives a class and learns to make images that the teacher assigns to that class. The student learns the
teacher's answers and, with `training.hard_weight`, the teacher's classes.

It is made of the terms that all generators share (torch-free): this file has its weights and published settings.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.generators import ConditionalOptions
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
            "loss": "kl",
            "temperature": 4.0,
            "hard_weight": 1.0,
            "attention_weight": 1.0,
        },
        "method_options": {
            "latent_dim": 256,
            "width": 64,
            "batch_size": 256,
            "learning_rate": 1e-3,
            "conditioning": "cat",
            "nll_weight": 1.0,
            "norm_weight": 0.0,
            "batchnorm_eps": 1e-5,
        },
    }
)
"""No code was published: the losses are the paper's, their weights are ours; the rest is that of DFAD."""


class CgddOptions(ConditionalOptions):
    """CGDD's generator (Yu et al., 2021): given a class, it makes images that the teacher assigns to this class."""

    presets: ClassVar[Presets] = {
        "default": {"memory": "reservoir", "training": {"hard_weight": 0.1, "attention_weight": 1.0}},
        "paper-reconstructed": PAPER,
    }

    name: Literal["cgdd"] = Field("cgdd", exclude=True)
    conditioning: Literal["sum", "cat"] = Field(
        "cat", description="How the class's learnt embedding joins the noise: added, or behind it."
    )
