"""The one interface (torch-free) through which a run reports progress and is asked to stop."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

UpdateKind = Literal[
    "stage", "progress", "beat", "published", "rolled-back", "fell-back", "checkpoint", "depth", "warning"
]


class Phase(StrEnum):
    """One kind of work of a run, with the unit in which it is counted.

    A run alternates between most of them round by round. `dfkd_core.planning` predicts units and cost of each.
    """

    PREPARE = "prepare"  # 1: reading and verifying the teacher, building the student
    PROCEDURAL = "procedural"  # images that a program draws and the teacher labels
    REFINEMENT = "refined"  # procedural images that take gradient steps
    WARM_UP = "warm-up"  # images of the synthesizer's updates before the first student update
    SYNTHESIS = "synthesis"  # images of the synthesizer's updates beside those of the student
    FRESH = "fresh"  # images of the synthesizer that are drawn and labelled
    MEMORY = "memory"  # rounds in which the memory learns or replays
    STUDENT = "teaching"  # student updates
    EVALUATION = "evaluation"  # evaluations on the probe
    AUDIT = "audit"  # images that complete the audit set at the end
    EXPORT = "export"  # 1: writing the student's files
    VERIFY = "verify"  # 1: comparing the files with PyTorch and the student with its teacher


@dataclass(frozen=True, slots=True)
class Update:
    """One report of a run. `data` depends on `kind`:

    stage: {} · progress: {"losses": {name: float}} · beat: {} · published: {"agreement": float} ·
    rolled-back: {"reason": str} · fell-back: {"reason", "from", "to"} · checkpoint: {"path": str} ·
    depth: {"passed": bool, "checked_by": version, and "measured" or "code", "detail", "hint"} of the teacher ·
    warning: {"code", "detail", "hint"}.
    """

    kind: UpdateKind
    stage: str  # load, inspect, distill, export, verify
    step: int = 0  # student updates done
    total_steps: int = 0  # student updates in all
    fraction: float = 0.0  # share of the whole job that is done; it never falls within a run
    agreement: float | None = None  # the newest agreement of the published student on the probe
    published_step: int | None = None  # student updates after which that student was published
    phase: Phase | None = None  # of the distillation: what is being done
    done: float = 0.0  # units of that phase that are done since the start of the run; a fraction within a unit
    beats: int = 0  # signs of life so far; a run that works sends one after every micro-batch
    eta_seconds: float | None = None  # running time left; None until something was measured
    message: str | None = None  # what is being done, in one line for people
    data: dict[str, Any] = field(default_factory=dict)


OnStep = Callable[[Update], bool]
"""Called after every round, and a few times a second in between; True asks the run to write a checkpoint and to raise
`Stopped`."""


BEAT_SECONDS = 0.2  # time between two signs of life; the caller is asked whether to stop as often
