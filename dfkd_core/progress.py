"""The one interface (torch-free) through which a run reports progress and is asked to stop."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
    data: dict[str, Any] = field(default_factory=dict)


OnStep = Callable[[Update], bool]
"""Called after every round, and a few times a second in between; True asks the run to write a checkpoint and to raise
`Stopped`."""


BEAT_SECONDS = 0.2  # time between two signs of life; the caller is asked whether to stop as often

STAGE_SHARES = {"load": 0.01, "inspect": 0.02, "distill": 0.91, "export": 0.03, "verify": 0.03}
"""Share of the whole job that each stage is, in the order of the stages; distillation is nearly all of it."""


@dataclass(slots=True)
class StageReporter:
    """Tells which stage a job is in and how far it is, and measures how long each stage takes."""

    on_step: OnStep
    durations: dict[str, float] = field(default_factory=dict)  # stage → seconds
    _now: str = ""  # the stage
    _beats: int = 0
    _told_at: float = -math.inf

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage, and measure it until the block ends."""
        started, self._now = time.monotonic(), name
        self.tell("stage", name)
        try:
            yield
        finally:
            self.durations[name] = round(time.monotonic() - started, 3)

    def tell(self, kind: UpdateKind, stage: str, data: Mapping[str, Any] | None = None) -> None:
        """Send one update; its fraction is the start of the stage."""
        self.on_step(Update(kind=kind, stage=stage, fraction=start_of(stage), data=dict(data or {})))

    def on_beat(self, *, interruptible: bool) -> None:
        """Pass on, now and then, that the present stage works. Outside the distillation nothing is interrupted."""
        self._beats += 1
        if time.monotonic() - self._told_at >= BEAT_SECONDS:
            self._told_at = time.monotonic()
            self.on_step(Update("beat", self._now, fraction=start_of(self._now), beats=self._beats))

    def on_safe_point(self) -> None:
        """Do the same as at a beat."""
        self.on_beat(interruptible=False)

    def during_distillation(self, update: Update) -> bool:
        """Pass on an update of the loop, with its fraction of the distillation made one of the whole job."""
        share = start_of("distill") + STAGE_SHARES["distill"] * update.fraction
        return self.on_step(replace(update, fraction=share))


def start_of(stage: str) -> float:
    """Share of the job that lies before a stage."""
    earlier = list(STAGE_SHARES)[: list(STAGE_SHARES).index(stage)]
    return sum(STAGE_SHARES[name] for name in earlier)
