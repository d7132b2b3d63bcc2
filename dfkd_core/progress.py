"""The one seam (torch-free) through which progress leaves the science and a wish to stop enters it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

UpdateKind = Literal["stage", "progress", "published", "rolled-back", "fell-back", "checkpoint", "depth", "warning"]


@dataclass(frozen=True, slots=True)
class Update:
    """One thing worth telling. `data` by kind:

    stage: {} · progress: {"losses": {name: float}} · published: {"agreement": float} ·
    rolled-back: {"reason": str} · fell-back: {"reason", "from", "to"} · checkpoint: {"path": str} ·
    depth: {"passed": bool, "checked_by": version, and "measured" or "code", "detail", "hint"} of the teacher ·
    warning: {"code", "detail", "hint"}.
    """

    kind: UpdateKind
    stage: str  # load, inspect, distill, export, verify
    step: int = 0  # student updates done
    total_steps: int = 0  # student updates in all
    fraction: float = 0.0  # of the whole job, never falling within a run
    agreement: float | None = None  # of the published student, on the probe: the newest score there is
    published_step: int | None = None  # student updates after which that student was published
    data: dict[str, Any] = field(default_factory=dict)


OnStep = Callable[[Update], bool]
"""Called at least once per outer iteration; True asks the run to write a checkpoint and raise `Stopped`."""
