"""Which method suits a teacher (torch-free): what `method: auto` becomes, from facts about the teacher's file alone."""

from dfkd_core.config import AUTO, DistillConfig
from dfkd_core.inspection import Inspection
from dfkd_core.options import MethodName

COSTLY_MACS = 1_000_000_000  # of the teacher for one image: beyond, optimising each image by itself takes too long


def chosen(config: DistillConfig, inspection: Inspection) -> DistillConfig:
    """`config` with a method in the place of auto, its preset under what the caller gave, and the reason."""
    if config.method != AUTO:
        return config
    method, fallback, because = choose(inspection)
    given = config.model_dump(mode="json", exclude_unset=True)
    given.pop("method_options", None)
    if given.get("memory_options"):
        given.setdefault("memory", config.memory)  # what is said there belongs to the memory that it was read for
    return DistillConfig.model_validate({"fallback": fallback, **given, "method": method, "because": because})


def choose(inspection: Inspection) -> tuple[MethodName, MethodName, str]:
    """Method, the one that takes over when it fails, and why."""
    costly = inspection.macs is not None and inspection.macs > COSTLY_MACS
    if "batchnorm" in inspection.offers and not costly:
        return "deepinversion", "pre_dfkd", "the teacher has BatchNorm statistics, which images can be optimised for"
    if costly:
        return "pre_dfkd", "dafl", f"the teacher takes {inspection.macs} multiply-adds an image: a generator is cheaper"
    return "pre_dfkd", "deepinversion", "the teacher has no BatchNorm statistics that images could be optimised for"
