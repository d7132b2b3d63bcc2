"""`method: auto`: the choice of a method from the inspection of the teacher's file. This module is torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dfkd_core.inspection.inspection import Inspection
from dfkd_core.options.base import HALF_SIZE
from dfkd_core.options.published import merged
from dfkd_core.options.registry import MethodName
from dfkd_core.planning.nominal import are_large
from dfkd_core.spec.config import AUTO, PRUNED_TEACHER, DistillConfig, StudentSpec

INVERSION: Final = "deepinversion"
COSTLY_MACS = 200_000_000  # of an image; beyond it the reason for a choice mentions the cost
DEEP_MACS = 20_000_000  # above it, and without statistics, refined shapes teach more per second than a generator


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen method, its fallback, the reason, and default settings, which the caller's settings override."""

    method: MethodName
    fallback: MethodName
    because: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def resolve_auto(
    config: DistillConfig, inspection: Inspection, student: StudentSpec
) -> tuple[DistillConfig, DistillConfig]:
    """Replace `method: auto` by the chosen method with its settings; any other config is returned as it is.

    The second config is that of the same method and memory where the caller asks for nothing else.
    """
    if config.method != AUTO:
        return config, _usual({}, config)
    choice = choose(inspection)
    if choice.method == INVERSION:
        choice = replace(choice, settings=merged(choice.settings, _for_pair(inspection, student)))
    explicit = config.model_dump(mode="json", exclude_unset=True)
    explicit.pop("method_options", None)
    if explicit.get("memory_options"):
        explicit.setdefault("memory", config.memory)  # these options were validated as options of this memory
    defaults = merged({"fallback": choice.fallback}, choice.settings)
    named = {"method": choice.method, "because": choice.because}
    resolved = DistillConfig.model_validate({**merged(defaults, explicit), **named})
    return resolved, _usual(choice.settings, resolved)


def _for_pair(inspection: Inspection, student: StudentSpec) -> dict[str, Any]:
    """Return settings of inversion that follow from the teacher's images and from where the student starts."""
    found: dict[str, Any] = {} if is_copy(student) else FROM_SCRATCH
    pictures = inspection.input_space and inspection.input_space.pictures
    if "batchnorm" not in inspection.offers:
        pictures = None
    if are_large(inspection.input_shape or ()):
        large, copying = LARGE, COPYING
        if pictures == "scenes":
            large, copying = merged(LARGE, LARGE_PHOTOGRAPHS), merged(COPYING, SCENES_TOO)
            if HALF_SIZE in inspection.offers:
                large = merged(large, COARSE)
        return merged(found, merged(large, copying if is_copy(student) else {}))
    if pictures in ("figures", "strokes"):
        return merged(found, STROKES)
    return found


def _usual(settings: Mapping[str, Any], config: DistillConfig) -> DistillConfig:
    return DistillConfig.model_validate(merged(settings, {"method": config.method, "memory": config.memory}))


def choose(inspection: Inspection) -> Choice:
    """Return the method that measured best for teachers of this kind; see docs/measurements.md.

    A costly teacher is served by the same method as a cheap one of its kind, with as many images as its effort pays
    for; what costs nothing to leave out, a generator and a model of its images, is left out.
    """
    macs = inspection.macs or 0
    few = f"; an image takes {macs:,} multiply-adds, so few are made" if macs > COSTLY_MACS else ""
    if "batchnorm" in inspection.offers:
        because = f"the teacher has BatchNorm statistics, so images are inverted until they match those{few}"
        return Choice(INVERSION, "fast", because, INVERTING)
    if macs > DEEP_MACS:
        because = f"the teacher has no BatchNorm statistics and is deep, so most images are shapes, refined{few}"
        return Choice(INVERSION, "fast", because, REFINING)
    return Choice("pre_dfkd", "dafl", "the teacher has no BatchNorm statistics, so shapes matter more than refinement")


def is_copy(student: StudentSpec) -> bool:
    """Return whether the student is its teacher's graph, narrower, and starts from its weights."""
    return student.architecture == PRUNED_TEACHER and student.init != "random"


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
LARGE = {"method_options": {"flip": False}}
"""In a mirror, text has no direction and a turned page is turned the other way: no image can be both. The student still
learns from mirrored images, with the teacher's answers to those."""
LARGE_PHOTOGRAPHS = {"method_options": {"learning_rate": 0.1, "bn_weight": 0.05}}
"""At the usual rate and weight, 20 steps lead nowhere, and the many channels of a large net outweigh the classes."""
COARSE = {"method_options": {"coarse_steps": 40, "steps": 10}}
"""As costly as 20 steps in full size, and nearer to the teacher's statistics."""
STROKES = {"method_options": {"figure_share": 0.67, "flip": False}, "training": {"augmentation": {"flip": False}}}
"""For teachers that have the statistics of grey strokes: digits, signs, clothes. In a mirror, signs are other signs."""
FROM_SCRATCH = {"training": {"augmentation": {"mixup": 0.0}}}
"""A student that knows nothing learns most from clear answers; blended images slow its first hundreds of updates."""
COPYING = {"training": {"block_weight": 100.0}}
SCENES_TOO = {"procedural": {"share": 0.5, "kinds": ["scenes"], "refinement": {"share": 0.0}}}
"""Blocks teach on any image, and a drawn scene costs little more than the teacher's answer."""
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
