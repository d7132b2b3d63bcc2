"""Networks small enough for tests that train, and the teacher and config around them."""

from typing import Any

import torch
from torch import nn

from dfkd_core.networks.teacher import InputSpace, Teacher
from dfkd_core.spec.config import DistillConfig

SHAPE = (1, 8, 8)
CLASSES = 4


def tiny_network(width: int = 6, *, shape: tuple[int, int, int] = SHAPE, batchnorm: bool = False) -> nn.Sequential:
    """One convolution and one linear layer, with the weights of seed `width`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(width)
        return nn.Sequential(
            nn.Conv2d(shape[0], width, 3, padding=1),
            nn.BatchNorm2d(width) if batchnorm else nn.Identity(),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(3),
            nn.Flatten(),
            nn.Linear(width * 9, CLASSES),
        )


def tiny_teacher(*, shape: tuple[int, int, int] = SHAPE, batchnorm: bool = False, features: bool = True) -> Teacher:
    """A teacher with random weights, sharpened so that its classes differ."""
    network = tiny_network(12, shape=shape, batchnorm=batchnorm)
    classifier = network[-1]
    assert isinstance(classifier, nn.Linear)
    with torch.no_grad():
        classifier.weight.mul_(8)
        classifier.bias.zero_()
    bounds = ((-1.0,) * shape[0], (2.0,) * shape[0])
    space = InputSpace(shape=shape, low=bounds[0], high=bounds[1], range_known=True)
    return Teacher(network, space, num_classes=CLASSES, classifier=classifier if features else None)


def tiny_config(**changes: Any) -> DistillConfig:
    """Seconds, not minutes. `changes` replace top-level keys; dicts are merged into the defaults here."""
    values: dict[str, Any] = {
        "memory": "reservoir",
        "budget": {"steps": 24},
        "method_options": {"latent_dim": 6, "width": 4, "batch_size": 24, "warmup_rounds": 2},
        "training": {"batch_size": 16, "updates_per_round": 4, "fresh_batches": 1, "replays_per_round": 16},
        "procedural": {
            "share": 0.5,
            "images_per_round": 24,
            "capacity": 200,
            "refinement": {"images_per_round": 8, "steps": 3},
        },
        "steadiness": {"probe_size": 64, "audit_size": 32, "evaluations": 4},
    }
    for key, change in changes.items():
        values[key] = {**values.get(key, {}), **change} if isinstance(change, dict) else change
    if values["memory"] == "vae":
        small = {"latent_dim": 5, "width": 4, "batch_size": 12, "agreement_gate": 0.0}
        values["memory_options"] = {**small, **values.get("memory_options", {})}
    return DistillConfig.model_validate(values)
