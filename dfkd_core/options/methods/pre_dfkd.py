"""Options and published settings of `pre_dfkd` (torch-free)."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.field_types import Fraction, Positive
from dfkd_core.options.generators import (
    ActivationWeight,
    AdvWeight,
    BalanceWeight,
    BatchNormWeight,
    LearningRate,
    OnehotWeight,
    TermOptions,
)
from dfkd_core.options.published import Presets, published

PAPER: dict[str, Any] = published(
    {
        "memory": "vae",
        "budget": {"steps": 400 * 36 * 10},  # epochs, outer iterations, student steps
        "training": {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "batch_size": 1152,  # 1024 novel and 128 remembered
            "updates_per_round": 10,
            "fresh_batches": 10,
            "replays_per_round": 1280,
            "replay_share": 1 / 9,
            "final_replay_share": 1 / 9,
            "loss": "l1",
        },
        "steadiness": {"evaluations": 400},
        "method_options": {
            "latent_dim": 1000,
            "width": 64,
            "batch_size": 1024,
            "learning_rate": 0.02,
            "onehot_weight": 1.0,
            "balance_weight": 5.0,
            "activation_weight": 0.1,
            "adv_weight": 1.0,
            "bn_weight": 0.0,
            "smoothness_weight": 0.0,
            "disagreement": "pseudo_js",
            "temperature": 3.0,
            "spectral_norm": True,
            "batchnorm_eps": 0.8,
        },
        "memory_options": {
            "latent_dim": 1000,
            "width": 64,
            "batch_size": 512,
            "updates_per_round": 4,
            "learning_rate": 5e-4,
            "pixel_weight": 1.0,
            "logit_weight": 1.0,
            "feature_weight": 0.0,
            "bn_weight": 0.0,
            "kld_weight": 1e-5,
            "prior_match_weight": 1.0,
            "output": "standardised",
            "prior": "standard",
            "self_replay_share": 0.2,
            "inference_steps": 1,
            "inference_learning_rate": 0.02,
            "agreement_gate": 0.0,
            "batchnorm_eps": 0.8,
            "encoder": "published",
        },
    }
)
"""The settings of the official code, for CIFAR-size images on a GPU."""


class PreDfkdOptions(TermOptions):
    """PRE-DFKD's novel generator (Binici et al., AAAI 2022): settings and loss weights."""

    presets: ClassVar[Presets] = {"default": {}, "paper": PAPER}

    name: Literal["pre_dfkd"] = Field("pre_dfkd", exclude=True)
    learning_rate: LearningRate = 0.02
    spectral_norm: bool = Field(True, description="Spectral norm on the generator's convolutions.")
    onehot_weight: OnehotWeight = 1.0
    balance_weight: BalanceWeight = 5.0
    activation_weight: ActivationWeight = 0.1
    adv_weight: AdvWeight = 1.0
    adv_limit: Fraction = Field(1.0, description="Disagreement beyond which the generator is not pushed further.")
    bn_weight: BatchNormWeight = 1.0
    disagreement: Literal["js", "pseudo_js"] = Field(
        "js", description="js: Jensen-Shannon divergence in [0, 1]; pseudo_js: the clipped form of the published code."
    )
    temperature: Positive = Field(1.0, description="Softmax temperature within the disagreement; published: 3.")
