"""The stages of a job (torch-free): which one runs, how far it is, how long each took, and when the job will end."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from dfkd_core.clock import Clock
from dfkd_core.errors import Stopped, TimeLimit
from dfkd_core.progress import BEAT_SECONDS, OnStep, Phase, Update, UpdateKind
from dfkd_core.pulse import Pulse

STAGES = {
    "load": "reading the teacher",
    "inspect": "checking the teacher",
    "distill": "preparing the distillation",
    "export": "writing the student's files",
    "verify": "comparing the student with its teacher",
}
"""The stages in the order in which a job goes through them, each with the words for what is done in it."""

PREPARING = ("load", "inspect")  # the stages before the distillation

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
    now: Callable[[], float] = time.monotonic
    pulse: Pulse = field(default_factory=Pulse)  # of the distillation
    limit_seconds: float | None = None  # of the whole job
    beat_seconds: float = BEAT_SECONDS
    durations: dict[str, float] = field(default_factory=dict)  # stage → seconds
    clock: Clock = field(init=False)
    planned_seconds: float | None = None  # of the whole job on this machine
    _totals: Mapping[Phase, float] = field(default_factory=dict)  # units of each phase in the whole run
    _inverts: bool = False
    _doing: str = ""  # the stage
    _beats: int = 0
    _stop_requested: bool = False
    _told_at: float = -math.inf
    _started_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock({}, now=self.now)
        self._started_at = self.now()

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the job began, or since it was resumed."""
        return self.now() - self._started_at

    def foresee(
        self,
        seconds: Mapping[Phase, float],
        totals: Mapping[Phase, float],
        *,
        inverts: bool,
    ) -> None:
        """Take over what each phase is predicted to take, and how many units it has.

        `inverts`: the synthesizer optimises its images one by one.
        """
        self.planned_seconds = sum(seconds.values())
        half = seconds.get(Phase.PREPARE, 0.0) / 2  # of the two stages that prepare the training
        stages = {"load": half, "inspect": half, "export": seconds.get(Phase.EXPORT, 0.0)}
        stages["verify"] = seconds.get(Phase.VERIFY, 0.0)
        self._totals = {phase: total for phase, total in totals.items() if phase not in _STAGED}
        counted = {phase.value: seconds.get(phase, 0.0) for phase in self._totals}
        self._inverts = inverts
        self.clock = Clock(stages | counted, limit_seconds=self.limit_seconds, now=self.now)
        self.clock.expect({phase.value: total for phase, total in self._totals.items()})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage, and measure it until the block ends."""
        started, self._doing = self.now(), name
        self.tell("stage", name)
        try:
            yield
        finally:
            self.durations[name] = round(self.now() - started, 3)
        if name == "distill":
            self.clock.finish_counted()
        else:
            self.clock.finish(name)

    def tell(self, kind: UpdateKind, stage: str, data: Mapping[str, Any] | None = None) -> None:
        """Send one update about a stage."""
        self._send(Update(kind=kind, stage=stage, message=STAGES[stage], data=dict(data or {})))

    def on_beat(self, *, interruptible: bool) -> None:
        """Pass on, now and then, that the present stage works, and end it if it has to stop.

        Raises:
            Stopped: the caller asks for it. A later attempt repeats the stage.
            TimeLimit: the seconds of the job are over before its distillation has begun.
        """
        self._beats += 1
        if time.monotonic() - self._told_at >= self.beat_seconds:
            self._told_at = time.monotonic()
            update = Update("beat", self._doing, message=STAGES[self._doing], beats=self._beats)
            self._stop_requested = self._send(update) or self._stop_requested
        if interruptible and self._stop_requested:
            raise Stopped(f"stopped while {STAGES[self._doing]}, as asked")
        limit = self.limit_seconds
        if interruptible and limit is not None and self._doing in PREPARING and self.elapsed_seconds >= limit:
            raise TimeLimit.before_a_student(limit)

    def on_safe_point(self) -> None:
        """Do the same as at a beat."""
        self.on_beat(interruptible=True)

    def during_distillation(self, update: Update) -> bool:
        """Pass on an update of the loop, with the fraction of the whole job, the time left and what is being done."""
        message, pulse = STAGES["distill"], self.pulse
        self.clock.take(pulse.work, pulse.seconds, pulse.expected)
        if update.phase is not None:
            total = pulse.expected.get(update.phase, self._totals.get(update.phase, 0.0))
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
