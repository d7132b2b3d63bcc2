"""Presets (torch-free): settings that were published, under the name by which they are quoted."""

from dfkd_core.config import DistillConfig

PRE_DFKD_PAPER = DistillConfig.model_validate(
    {
        "method": "pre_dfkd",
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
            "fresh_rounds": 1,
            "replays_per_round": 1280,
            "replay_share": 1 / 9,
            "final_replay_share": 1 / 9,
            "loss": "l1",
            "gradient_clip": None,
            "augmentation": {"shift": 0.0, "flip": False, "mixup": 0.0, "noise": 0.0, "rotation": 0.0},
            "valid_range": False,
            "rate_warmup": 0.0,
        },
        "procedural": {"share": 0.0},
        "steadiness": {"consolidation": 0.0, "evaluations": 400},
        "method_options": {
            "latent_dim": 1000,
            "width": 64,
            "batch_size": 1024,
            "warmup_rounds": 0,
            "learning_rate": 0.02,
            "decay": "none",
            "restart_rounds": 0,
            "gradient_clip": None,
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
            "output": "standardised",
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
"""PRE-DFKD with the settings of its official code, for CIFAR-size images on a GPU. The student that is published is
still the averaged and ratcheted one; the raw student of the curve is the paper's."""
