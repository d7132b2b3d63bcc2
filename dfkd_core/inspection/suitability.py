"""The methods that a teacher can serve, and the choice of `auto`, from its inspection alone (torch-free)."""

from collections.abc import Collection
from dataclasses import dataclass

from dfkd_core.inspection.auto_method import choose
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.options.registry import METHODS

_STATISTICS = {
    "folded": "the exporter folded its BatchNorm statistics into the convolutions",
    "unknown": "it has no BatchNorm statistics, or the exporter folded them",
    "none": "it has no BatchNorm layers",
}


@dataclass(frozen=True, slots=True)
class UnservedMethod:
    """A method that would be refused for this teacher."""

    name: str
    needs: list[str]  # what the method needs and the teacher does not offer
    because: str


@dataclass(frozen=True, slots=True)
class AutoChoice:
    """What `method: auto` becomes for this teacher."""

    method: str
    fallback: str  # the method that takes over if the first one fails
    because: str


@dataclass(frozen=True, slots=True)
class Suitability:
    """What can be done with a teacher. The API describes these fields in `dfkd.wire.teacher`."""

    served: list[str]  # names of methods
    unserved: list[UnservedMethod]
    auto: AutoChoice


def suitability(inspection: Inspection) -> Suitability:
    """Sort all methods into served and unserved ones, and add the method that `auto` would choose."""
    served, unserved = [], []
    for name, options in METHODS.items():
        needs = lacking(options.needs, inspection.offers)
        if needs:
            unserved.append(UnservedMethod(name=name, needs=needs, because=_because(needs, inspection)))
        else:
            served.append(name)
    choice = choose(inspection)
    auto = AutoChoice(method=choice.method, fallback=choice.fallback, because=choice.because)
    return Suitability(served=served, unserved=unserved, auto=auto)


def lacking(needs: Collection[str], offers: Collection[str]) -> list[str]:
    """Return the needs that are not offered, sorted."""
    return sorted(set(needs) - set(offers))


def _because(needs: list[str], inspection: Inspection) -> str:
    reasons = {
        "batchnorm": _STATISTICS.get(inspection.batchnorm.status, "it offers no BatchNorm statistics"),
        "features": "a safetensors teacher needs the name of its architecture first"
        if inspection.format == "safetensors"
        else "its logits are not what a linear layer gives",
    }
    return "; ".join(reasons.get(need, f"it offers no {need}") for need in needs)
