"""The loop: a teacher goes in, a student comes out, and no real image is seen.

    warm up the synthesizer without the student
    until all student updates are done:                           # a round, see `round`
        draw procedural images                                    # a part of all new images is held out for the judge
        synthesizer learns                                        # not during consolidation, the last rounds
        fresh = synthesizer's images, labelled by the teacher
        remembered = memory's replay
        repeat: student learns from procedural, fresh and remembered images; its running average follows
        memory takes in the fresh images
        roll the synthesizer back if it collapsed
        now and then: judge scores the average on the probe, and publishes it if it beats the published student
    return the published student

The losses cite their equations in `dfkd_core/networks/losses`. What the step count decides is in `schedule`.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from dfkd_core.errors import CheckpointMismatch, GeneratorCollapsed, Stopped, TimeLimit
from dfkd_core.loop.checkpoint import CheckpointWriter, digest_of_config, fingerprint_of, read_checkpoint
from dfkd_core.loop.probe import Probe
from dfkd_core.loop.round import train_round
from dfkd_core.loop.state import Run, build_run, counting_teacher_images, seeded_global_draws
from dfkd_core.networks.precision import Engine, engine_running
from dfkd_core.networks.teacher import Teacher
from dfkd_core.notice import Notice
from dfkd_core.progress import BEAT_SECONDS, OnStep, Phase, Update, UpdateKind
from dfkd_core.pulse import Interrupted, Pulse
from dfkd_core.spec.config import Budget, DistillConfig
from dfkd_core.students.temporary_batchnorm import fold

# The fallback takes over after this share of a run without a better student.
PLATEAU = 0.25
# It does not take over from a published student that agrees with its teacher on this share of the probe: good runs end
# in a plateau.
GOOD = 0.9

# At most this share of the seconds of a job is kept for what comes behind its training.
MOST_RESERVED = 0.5

Measure = Callable[[int, Mapping[str, nn.Module]], None]


@dataclass(frozen=True, slots=True)
class Distilled:
    """The result of a run."""

    student: nn.Module  # the published one, in eval mode, without the BatchNorms of its training
    published_step: int
    probe_agreement: float
    curve: list[dict[str, Any]]  # each entry has step, raw, ema, published (agreements), published_step, losses
    audit: Probe  # held-out synthetic images that decided nothing
    memory_bytes: int
    warnings: list[Notice]
    student_updates: int
    images_synthesized: int
    teacher_forwards: int  # images through the teacher
    rollbacks: int


def distill(
    teacher: Teacher,
    student: nn.Module,
    config: DistillConfig,
    *,
    on_step: OnStep,
    checkpoints: CheckpointWriter | None = None,
    resume_from: Path | None = None,
    continued_budget: Budget | None = None,
    measure: Measure | None = None,
    pulse: Pulse | None = None,
    clock: Callable[[], float] = time.monotonic,
    beat_seconds: float = BEAT_SECONDS,
    spent_seconds: float = 0.0,
    reserve: Callable[[], float] = lambda: 0.0,
) -> Distilled:
    """Train `student` in place, on the device it is on, and return the published student.

    `on_step` is called after every round and, in between, a few times a second; its fractions are of the distillation
    alone. `measure` gets the step and the raw, the averaged and the published student after every evaluation; it must
    not change them. `pulse` counts the work of the run, and others may read it meanwhile. `clock` gives the
    seconds that `budget.max_seconds` limits; `beat_seconds` is the time between two signs of life, at each of which the
    run can be stopped. Of the limited seconds, `spent_seconds` are over when the loop begins, and `reserve` tells how
    many are needed behind it.

    A precision that the config leaves open is fp32: whoever knows the worker decides before.

    `resume_from` is a checkpoint of the same run. With `continued_budget` it may also be one of the same run under that
    budget: the run then goes on from there under its own budget, and its seconds are counted from zero.

    Raises:
        Stopped: if `on_step` asked for that; a checkpoint was written if there is a place for it.
        DistillationDiverged: if a loss is not finite any more.
        GeneratorCollapsed: if the synthesizer collapsed for good and there is no fallback.
        TimeLimit: if `budget.max_seconds` are over and no student was published yet.
        CheckpointMismatch: if `resume_from` belongs to another run.
        CompileUnavailable: if torch.compile is asked for and does not work here.
    """
    device, config = next(student.parameters()).device, config.computed_in("fp32")
    with seeded_global_draws(config.seed), engine_running(Engine(config.compute), device=device):
        run = build_run(teacher, student, config, pulse=pulse)
        facts = fingerprint_of(config, teacher, student, device=device)
        if resume_from is not None:
            wanted = {**facts, **(checkpoints.fingerprint if checkpoints else {})}
            _resume(run, resume_from, wanted, continued_budget=continued_budget)
        with counting_teacher_images(run):
            run.counters.elapsed_seconds += spent_seconds
            return _finish(_Loop(run, facts, on_step, checkpoints, measure, clock, beat_seconds, reserve))


def _resume(run: Run, path: Path, wanted: Mapping[str, str], *, continued_budget: Budget | None) -> None:
    """Restore this run, or extend the run that had the other budget."""
    try:
        run.restore(read_checkpoint(path, fingerprint=wanted))
    except CheckpointMismatch:
        if continued_budget is None:
            raise
        before = run.config.model_copy(update={"budget": continued_budget})
        run.restore(read_checkpoint(path, fingerprint={**wanted, "config": digest_of_config(before)}))
        run.extend()


@dataclass(slots=True)
class _Loop:
    """The run together with the outside world it reports to. It hears the run's pulse."""

    run: Run
    facts: Mapping[str, str]  # the fingerprint of its checkpoints
    on_step: OnStep
    checkpoints: CheckpointWriter | None
    measure: Measure | None
    clock: Callable[[], float]
    beat_seconds: float
    reserve: Callable[[], float]  # seconds that are needed behind the loop
    stop_requested: bool = False
    in_overtime: bool = False  # the seconds are spent, and what there is gets finished
    told_at: float = -math.inf
    resumed_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.resumed_at = self.clock()

    def tell(self, kind: UpdateKind, data: dict[str, Any] | None = None) -> None:
        """Send one update to the caller, and remember whether it asks the run to stop."""
        run, pulse = self.run, self.run.pulse
        total, newest = run.schedule.total_steps, run.curve[-1] if run.curve else {}
        update = Update(
            kind=kind,
            stage="distill",
            step=run.counters.steps,
            total_steps=total,
            fraction=run.counters.steps / total,
            agreement=newest.get("published"),
            published_step=newest.get("published_step"),
            phase=pulse.phase,
            done=pulse.work.get(pulse.phase, 0.0) if pulse.phase else 0.0,
            beats=pulse.beats,
            data=data or {},
        )
        self.told_at = time.monotonic()
        self.stop_requested = self.on_step(update) or self.stop_requested

    def on_beat(self, *, interruptible: bool) -> None:
        """Tell the caller that the run works; interrupt a piece of work if the run has to stop."""
        if time.monotonic() - self.told_at >= self.beat_seconds:
            self.tell("beat")
        if interruptible and not self.in_overtime and (self.stop_requested or self.out_of_time()):
            raise Interrupted

    def on_safe_point(self) -> None:
        """Do the same where the state is exact, and write a checkpoint if one is due."""
        self.run.mark()
        self.on_beat(interruptible=True)
        if self.checkpoints is not None and self.checkpoints.due():
            self.save()

    def save(self) -> None:
        """Write a checkpoint and tell where it is, if there is a place for checkpoints."""
        if self.checkpoints is None:
            return
        self.count_time()
        path = self.checkpoints.write(self.run.state(), fingerprint=self.facts)
        self.tell("checkpoint", {"path": str(path)})

    def count_time(self) -> None:
        """Add the seconds since the last call to the run's."""
        now = self.clock()
        self.run.counters.elapsed_seconds += now - self.resumed_at
        self.resumed_at = now

    def out_of_time(self) -> bool:
        """Return whether the wall-clock budget is spent, but for what is needed behind the loop."""
        limit = self.run.config.budget.max_seconds
        if limit is None:
            return False
        self.count_time()
        return self.run.counters.elapsed_seconds >= limit - min(self.reserve(), MOST_RESERVED * limit)


def _train(loop: _Loop) -> None:
    """Rounds until the steps are done."""
    run = loop.run
    while True:
        if run.evaluation_due:
            _evaluate(loop)
            _leave_a_plateau(loop)
            run.pulse.safe_point()
        if run.position.between_rounds and run.counters.steps >= run.schedule.total_steps:
            return
        try:
            result = train_round(run)
        except GeneratorCollapsed as error:
            if run.config.fallback is None:
                raise
            _fall_back(loop, error.detail)
            continue
        loop.tell("progress", {"losses": result.losses})
        if result.rolled_back is not None:
            loop.tell("rolled-back", {"reason": result.rolled_back})
        run.pulse.safe_point()


def _evaluate(loop: _Loop) -> None:
    """Let the judge score the students, and tell what it found."""
    run, step = loop.run, loop.run.counters.steps
    run.pulse.begin(Phase.EVALUATION)
    scores = run.judge.evaluate(
        run.student,
        run.images,
        step=step,
        replay_share=run.schedule.replay_share_at(step),
        margin_scale=min(1.0, run.schedule.student_rate(step)),  # an average that hardly moves needs less proof
    )
    run.counters.evaluated_steps = step
    run.curve.append({"step": step, **scores.as_dict(), "losses": run.losses})
    run.pulse.did(1)
    if scores.replaced:
        loop.tell("published", {"agreement": scores.published})
    else:
        loop.tell("progress", {"losses": {}})  # the round's losses were told; the published student has a newer score
    if loop.measure is not None:
        students = {"raw": run.student.network, "ema": run.student.average, "published": run.judge.best.published}
        loop.measure(step, students)


def _leave_a_plateau(loop: _Loop) -> None:
    """Fall back if a poor student has not become better for long and there is still time."""
    run = loop.run
    since = run.counters.steps - (run.judge.best.published_step or 0)
    stuck = since > PLATEAU * run.schedule.total_steps and run.curve[-1]["published"] < GOOD
    if run.config.fallback is not None and stuck and not run.schedule.consolidates(run.counters.steps):
        _fall_back(loop, f"no better student in {since} updates")


def _fall_back(loop: _Loop, reason: str) -> None:
    config = loop.run.config
    assert config.fallback is not None
    loop.tell("fell-back", {"reason": reason, "from": config.method, "to": config.fallback})
    loop.run.take_over(config.fallback)


def _finish(loop: _Loop) -> Distilled:
    """Do the work, and leave a final checkpoint from which the rest can be repeated."""
    run, best = loop.run, loop.run.judge.best
    loop.tell("stage")
    if not run.done:
        with run.pulse.heard_by(loop):
            _work(loop)
        run.pulse.end()
        run.done = True
        loop.save()
    assert best.published_step is not None  # an evaluation has seen to that
    counters = run.counters
    return Distilled(
        student=fold(best.published),
        published_step=best.published_step,
        probe_agreement=run.curve[-1]["published"],
        curve=run.curve,
        audit=run.judge.audit,
        memory_bytes=run.memory.num_bytes,
        warnings=_warnings(run),
        student_updates=counters.steps,
        images_synthesized=counters.images_synthesized,
        teacher_forwards=counters.teacher_images,
        rollbacks=counters.rollbacks,
    )


def _work(loop: _Loop) -> None:
    """Train and complete the audit set. A stop is obeyed with a checkpoint; at the time limit the work simply ends."""
    run = loop.run
    run.mark()
    try:
        run.images.complete()
        _train(loop)
        run.judge.complete_audit(run.images, run.counters)
    except Interrupted:
        run.rewind()
        if loop.stop_requested:
            loop.save()
            raise Stopped(f"stopped at step {run.counters.steps} as asked") from None
        loop.in_overtime = True
        if run.judge.best.published_step is None:
            raise TimeLimit.before_a_student(run.config.budget.max_seconds or 0.0) from None
        run.judge.audit_shapes(run.images)


def _warnings(run: Run) -> list[Notice]:
    found = [*run.memory.warnings, *run.student.warnings]
    if run.counters.steps < run.schedule.total_steps:
        detail = f"the time limit ended the run at step {run.counters.steps} of {run.schedule.total_steps}"
        hint = "raise distillation.budget.max_seconds or lower distillation.budget.steps"
        found.append(Notice(code="budget-exhausted", detail=detail, hint=hint))
    return found
