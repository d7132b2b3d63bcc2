"""Which method suits a teacher (torch-free): what `method: auto` becomes, from facts about the teacher's file alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dfkd_core.inspection.inspection import Inspection
from dfkd_core.options.published import merged
from dfkd_core.options.registry import MethodName
from dfkd_core.spec.config import AUTO, DistillConfig

COSTLY_MACS = 200_000_000  # of the teacher for one image: beyond, every image that it sees must count
DEEP_MACS = 20_000_000  # beyond, without statistics, images of a generator teach less in their time than refined shapes


@dataclass(frozen=True, slots=True)
class Choice:
    """A method, the one that takes over when it fails, why, and settings that lie under what the caller gave."""

    method: MethodName
    fallback: MethodName
    because: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def chosen(config: DistillConfig, inspection: Inspection) -> DistillConfig:
    """`config` with a method in the place of auto and everything that belongs to it."""
    if config.method != AUTO:
        return config
    choice = choose(inspection)
    given = config.model_dump(mode="json", exclude_unset=True)
    given.pop("method_options", None)
    if given.get("memory_options"):
        given.setdefault("memory", config.memory)  # what is said there belongs to the memory that it was read for
    under = merged({"fallback": choice.fallback}, choice.settings)
    named = {"method": choice.method, "because": choice.because}
    return DistillConfig.model_validate({**merged(under, given), **named})


def choose(inspection: Inspection) -> Choice:
    """What is best known for such a teacher; docs/measurements.md has the measurements."""
    statistics = "batchnorm" in inspection.offers
    if inspection.macs is not None and inspection.macs > COSTLY_MACS:
        because = f"the teacher takes {inspection.macs} multiply-adds an image, so few images are drawn and refined"
        return Choice("pre_dfkd", "dafl", because, SPARING)
    if statistics:
        because = "the teacher has BatchNorm statistics, so images are inverted until they match those"
        return Choice("deepinversion", "fast", because, INVERTING)
    if inspection.macs is not None and inspection.macs > DEEP_MACS:
        because = "the teacher has no BatchNorm statistics and is deep, so most images are shapes, refined"
        return Choice("deepinversion", "fast", because, REFINING)
    return Choice("pre_dfkd", "dafl", "the teacher has no BatchNorm statistics, so shapes matter more than refinement")


SPARING = {"procedural": {"images_per_round": 512, "refinement": {"images_per_round": 32}}}
BRIEF = {
    "budget": {"steps": 1500},
    "training": {
        "learning_rate": 0.004,
        "batch_size": 128,
        "updates_per_round": 40,
        "replay_share": 0.9,
        "final_replay_share": 0.9,
        "feature_weight": 25.0,
        "augmentation": {"flip": True, "rotation": 0.0, "brightness": 0.0, "contrast": 0.0, "mixup": 0.5, "noise": 0.0},
    },
    "steadiness": {"probe_size": 1000, "evaluations": 10},
}
INVERTING = merged(
    BRIEF,
    {
        "procedural": {"share": 0.0},
        "method_options": {
            "warmup_rounds": 8,
            "steps": 20,
            "learning_rate": 0.4,
            "smoothness_weight": 0.1,
            "flip": True,
        },
    },
)
REFINING = merged(
    BRIEF,
    {
        "procedural": {
            "images_per_round": 512,
            "refinement": {"share": 0.75, "images_per_round": 128, "learning_rate": 0.04},
        },
        "method_options": {"batch_size": 8, "warmup_rounds": 1, "steps": 20},
    },
)
