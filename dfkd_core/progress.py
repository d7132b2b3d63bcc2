"""The one interface (torch-free) through which a run reports progress and is asked to stop."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from dfkd_core.clock import Clock

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

STAGES = {
    "load": "reading the teacher",
    "inspect": "checking the teacher",
    "distill": "preparing the distillation",
    "export": "writing the student's files",
    "verify": "comparing the student with its teacher",
}
"""The stages of a job in their order, and what is being done in each."""

_STAGED = {Phase.PREPARE, Phase.EXPORT, Phase.VERIFY}  # phases that are stages of their own

_DOING = {
    Phase.PROCEDURAL: "drawing images",
    Phase.REFINEMENT: "refining drawn images",
    Phase.FRESH: "labelling images",
    Phase.MEMORY: "remembering images, round",
    Phase.STUDENT: "teaching the student, update",
    Phase.EVALUATION: "scoring the student, evaluation",
    Phase.AUDIT: "completing the audit set, image",
}


@dataclass(slots=True)
class StageReporter:
    """Tells which stage a job is in and how far it is, and measures how long each stage takes."""

    on_step: OnStep
    durations: dict[str, float] = field(default_factory=dict)  # stage → seconds
    clock: Clock = field(default_factory=lambda: Clock({}))
    planned_seconds: float | None = None  # of the whole job on this machine
    _totals: Mapping[Phase, float] = field(default_factory=dict)  # units of each phase in the whole run
    _inverts: bool = False
    _now: str = ""  # the stage
    _beats: int = 0
    _told_at: float = -math.inf

    def foresee(
        self,
        seconds: Mapping[Phase, float],
        totals: Mapping[Phase, float],
        *,
        limit_seconds: float | None,
        inverts: bool,
    ) -> None:
        """Take over what each phase is predicted to take, and how many units it has.

        `limit_seconds` ends the distillation. `inverts`: the synthesizer optimises its images one by one.
        """
        self.planned_seconds = sum(seconds.values())
        half = seconds.get(Phase.PREPARE, 0.0) / 2  # of the two stages that prepare the training
        stages = {"load": half, "inspect": half, "export": seconds.get(Phase.EXPORT, 0.0)}
        stages["verify"] = seconds.get(Phase.VERIFY, 0.0)
        self._totals = {phase: total for phase, total in totals.items() if phase not in _STAGED}
        counted = {phase.value: seconds.get(phase, 0.0) for phase in self._totals}
        self._inverts = inverts
        self.clock = Clock(stages | counted, limit_seconds=limit_seconds)
        self.clock.expect({phase.value: total for phase, total in self._totals.items()})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage, and measure it until the block ends."""
        started, self._now = time.monotonic(), name
        self.tell("stage", name)
        try:
            yield
        finally:
            self.durations[name] = round(time.monotonic() - started, 3)
        if name == "distill":
            self.clock.finish_counted()
        else:
            self.clock.finish(name)

    def tell(self, kind: UpdateKind, stage: str, data: Mapping[str, Any] | None = None) -> None:
        """Send one update about a stage."""
        self._send(Update(kind=kind, stage=stage, message=STAGES[stage], data=dict(data or {})))

    def on_beat(self, *, interruptible: bool) -> None:
        """Pass on, now and then, that the present stage works. Outside the distillation nothing is interrupted."""
        self._beats += 1
        if time.monotonic() - self._told_at >= BEAT_SECONDS:
            self._told_at = time.monotonic()
            self._send(Update("beat", self._now, message=STAGES[self._now], beats=self._beats))

    def on_safe_point(self) -> None:
        """Do the same as at a beat."""
        self.on_beat(interruptible=False)

    def during_distillation(self, update: Update) -> bool:
        """Pass on an update of the loop, with the fraction of the whole job, the time left and what is being done."""
        message = STAGES["distill"]
        if update.phase is not None:
            total = self._totals.get(update.phase, 0.0)
            self.clock.count(update.phase.value, update.done, total)
            message = message_of(update.phase, update.done, total, inverts=self._inverts)
        return self._send(replace(update, message=message))

    def _send(self, update: Update) -> bool:
        return self.on_step(replace(update, fraction=self.clock.fraction, eta_seconds=self.clock.eta_seconds))


def message_of(phase: Phase, done: float, total: float, *, inverts: bool) -> str:
    """Return what is being done, such as "inverting images 320 of 4 096"."""
    doing = _DOING.get(phase, phase.value)
    if phase in {Phase.WARM_UP, Phase.SYNTHESIS}:
        doing = "inverting images" if inverts else "training the generator on images"
    counted = f"{doing} {_number(done)}"
    return f"{counted} of {_number(max(total, done))}" if total else counted


def _number(count: float) -> str:
    return f"{int(count):,}".replace(",", " ")
