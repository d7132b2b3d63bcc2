"""The settings that all published presets share (torch-free): they switch off what this service adds to the papers."""

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]
Presets = Mapping[str, Settings]  # a preset's name, and what it changes of the defaults

NOTHING_OF_OURS: dict[str, Any] = {
    "training": {
        "fresh_batches": 1,
        "fresh_rounds": 1,
        "gradient_clip": None,
        "augmentation": {"shift": 0.0, "flip": False, "mixup": 0.0, "noise": 0.0, "rotation": 0.0},
        "valid_range": False,
        "rate_warmup": 0.0,
        "renormalise": False,
    },
    "procedural": {"share": 0.0},
    "steadiness": {"consolidation": 0.0},
}
"""Switches off procedural images, augmentation, warm-up of the rate, consolidation, clipping, temporary BatchNorms."""


def merged(under: Settings, over: Settings) -> dict[str, Any]:
    """Return a tree with the leaves of both trees; a leaf of `over` replaces the leaf at the same place."""
    tree = dict(under)
    for key, value in over.items():
        below = tree.get(key)
        tree[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return tree


GENERATOR: dict[str, Any] = merged(
    NOTHING_OF_OURS,
    {
        "memory": "none",
        "training": {"updates_per_round": 1},
        "method_options": {
            "warmup_rounds": 0,
            "restart_rounds": 0,
            "decay": "none",
            "gradient_clip": None,
            "output": "standardised",
        },
    },
)
"""The loop of the methods with a persistent generator: student and generator in turn, no memory."""


def published(settings: Settings) -> dict[str, Any]:
    """Return the settings of one paper, merged over the settings of the loop that all these papers share."""
    return merged(GENERATOR, settings)
