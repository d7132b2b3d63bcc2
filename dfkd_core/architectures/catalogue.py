"""The catalogue of student architectures (torch-free). Teachers in safetensors files use the same names."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dfkd_core.architectures import lenet, mobilenetv2, resnet, vgg, wrn
from dfkd_core.architectures.family import Architecture, Fit
from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.errors import StudentError
from dfkd_core.spec.explanation import did_you_mean
from dfkd_core.spec.json_pointer import child_pointer

FAMILIES = (lenet, resnet, wrn, vgg, mobilenetv2)
"""The modules of all families, in the order of the catalogue and of docs/students.md."""

ARCHITECTURES: Mapping[str, Architecture] = {
    architecture.name: architecture for family in FAMILIES for architecture in family.ARCHITECTURES
}

WIDEST = 16.0


def describe(
    architecture: str,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    width: float = 1.0,
    options: Mapping[str, object] | None = None,
) -> NetworkDescription:
    """Return the named network, sized for images of `input_shape` (C, H, W) and `num_classes` logits.

    Raises:
        StudentError: a value is wrong. `pointer` names its place in the spec: /student/architecture if the name is
            unknown or the architecture cannot take the images, else /student/width, /student/options/NAME,
            /teacher/input/shape or /teacher/num_classes.
    """
    known = ARCHITECTURES.get(architecture)
    if known is None:
        raise unknown_architecture(architecture, ARCHITECTURES)
    fit = Fit(
        input_shape=_checked_shape(input_shape),
        num_classes=_checked_classes(num_classes),
        width=_checked_width(width),
        options=_checked_options(known, options or {}),
    )
    try:
        return NetworkDescription(
            known.name, fit.input_shape, fit.num_classes, known.layers(fit), width=fit.width, options=fit.options
        )
    except StudentError as error:
        detail = f"{known.name} cannot take {'×'.join(map(str, fit.input_shape))} images: {error.detail}"
        raise StudentError(detail, hint=error.hint, pointer="/student/architecture") from error


def unknown_architecture(name: str, known: Iterable[str]) -> StudentError:
    """Return the refusal of a name that is not among the known ones."""
    return StudentError(
        f"there is no architecture of this name{did_you_mean(name, known)}",
        hint=f"Known are {', '.join(known)}.",
        pointer="/student/architecture",
    )


def catalogue(input_shape: Sequence[int], num_classes: int, width: float = 1.0) -> list[dict[str, Any]]:
    """Return one entry for each architecture, sized for these images (C, H, W) and classes, in the catalogue's order.

    Each entry has name, family, paper, form and options. It also has parameters and macs or, if the architecture cannot
    take the input, `refused` with the reason.
    """
    return [_entry(known, input_shape, num_classes, width) for known in ARCHITECTURES.values()]


def _entry(known: Architecture, input_shape: Sequence[int], num_classes: int, width: float) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": known.name,
        "family": known.family,
        "paper": known.paper,
        "form": known.form,
        "options": {
            name: {"default": option.default, "minimum": option.lowest, "exclusiveMaximum": option.below}
            | {"type": "number", "description": option.description}
            for name, option in known.options.items()
        },
    }
    try:
        network = describe(known.name, input_shape=input_shape, num_classes=num_classes, width=width)
    except StudentError as error:
        if error.pointer != "/student/architecture":
            raise
        return entry | {"refused": error.detail}
    return entry | {"parameters": network.parameters, "macs": network.macs}


def _checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or any(side < 1 for side in shape):
        raise StudentError(
            f"an input shape is [channels, height, width], not {list(shape)}", pointer="/teacher/input/shape"
        )
    return shape[0], shape[1], shape[2]


def _checked_classes(num_classes: int) -> int:
    if num_classes < 1:
        raise StudentError(f"a classifier needs classes, not {num_classes}", pointer="/teacher/num_classes")
    return num_classes


def _checked_width(width: float) -> float:
    if not (math.isfinite(width) and 0 < width <= WIDEST):
        raise StudentError(f"width must be above 0 and at most {WIDEST:g}, not {width}", pointer="/student/width")
    return float(width)


def _checked_options(known: Architecture, options: Mapping[str, object]) -> dict[str, float]:
    for name in options:
        if name not in known.options:
            allowed = ", ".join(known.options) or "none"
            raise StudentError(
                f"{known.name} has no option of this name{did_you_mean(name, known.options)}",
                hint=f"Its options: {allowed}.",
                pointer=child_pointer("/student/options", name),
            )
    return {
        name: option.check(options[name], name=name) if name in options else option.default
        for name, option in known.options.items()
    }
