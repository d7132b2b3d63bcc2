"""The loop: a teacher goes in, a student comes out, and no real image is seen.

    warm up the synthesizer without the student
    until all student updates are done:                           # a round
        synthesizer learns                                        # not during consolidation, the last rounds
        fresh = synthesizer's images, labelled by the teacher     # some are held out for probe and audit
        remembered = memory's replay
        repeat: student learns from fresh and remembered; its running average follows
        memory takes in the fresh images
        guard: roll the synthesizer back if it collapsed
        now and then: score the average on the probe; publish it if it beats the published student
    return the published student

Losses cite their equations in `losses`; what the step count decides is in `schedule`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from dfkd_core.errors import CheckpointMismatch, GeneratorCollapsed, Stopped
from dfkd_core.images.batch import Batch
from dfkd_core.loop.checkpoint import CheckpointWriter, digest_of_config, fingerprint_of, read_checkpoint
from dfkd_core.loop.evaluation import evaluate_on_probe
from dfkd_core.loop.round import complete_audit, train_round
from dfkd_core.loop.state import Run, build_run, counting_teacher_images, seeded_global_draws
from dfkd_core.networks.precision import Engine, engine_running
from dfkd_core.networks.teacher import Teacher
from dfkd_core.notice import Notice
from dfkd_core.progress import OnStep, Update, UpdateKind
from dfkd_core.spec.config import Budget, DistillConfig
from dfkd_core.students.temporary_batchnorm import fold

PLATEAU = 0.25  # share of a run without a better student after which the fallback takes over,
GOOD = 0.9  # unless that student agrees with its teacher on so much of the probe: a plateau is where good runs end

Measure = Callable[[int, Mapping[str, nn.Module]], None]


@dataclass(frozen=True, slots=True)
class Distilled:
    """What a run leaves behind."""

    student: nn.Module  # the published one, in eval mode, without the BatchNorms of its training
    published_step: int
    probe_agreement: float
    curve: list[dict[str, Any]]  # for each evaluation: step, raw, ema, published (agreements), published_step, losses
    audit: Batch  # held-out synthetic images that decided nothing
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
) -> Distilled:
    """Train `student` in place, on the device it is on, and return the published one.

    `continued_budget`: the checkpoint may also be one of the same run under this budget; then the run goes on from
    there as one with its own budget would go on at that step, and the seconds are counted anew.

    `on_step` hears of every round; fractions are of the distillation alone. `measure` only measures: it gets the step
    and the raw, ema and published students after every evaluation. Raises Stopped, DistillationDiverged,
    GeneratorCollapsed, CheckpointMismatch, CompileUnavailable.
    """
    device = next(student.parameters()).device
    with seeded_global_draws(config.seed), engine_running(Engine(config.compute), device=device):
        run = build_run(teacher, student, config)
        facts = fingerprint_of(config, teacher, student, device=run.device)
        if resume_from is not None:
            wanted = {**facts, **(checkpoints.fingerprint if checkpoints else {})}
            _resume(run, resume_from, wanted, continued_budget=continued_budget)
        with counting_teacher_images(run):
            return _finish(_Loop(run, facts, on_step, checkpoints, measure))


def _resume(run: Run, path: Path, wanted: Mapping[str, str], *, continued_budget: Budget | None) -> None:
    """Go on with this run, or extend the one that had the other budget; CheckpointMismatch."""
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
    """The run together with the outside world it reports to."""

    run: Run
    facts: Mapping[str, str]
    on_step: OnStep
    checkpoints: CheckpointWriter | None
    measure: Measure | None
    resumed_at: float = field(default_factory=time.monotonic)
    stop_requested: bool = False

    def tell(self, kind: UpdateKind, data: dict[str, Any] | None = None) -> None:
        """Send one update through the seam and remember the wish to stop."""
        run = self.run
        total, newest = run.schedule.total_steps, run.curve[-1] if run.curve else {}
        update = Update(
            kind=kind,
            stage="distill",
            step=run.counters.steps,
            total_steps=total,
            fraction=run.counters.steps / total,
            agreement=newest.get("published"),
            published_step=newest.get("published_step"),
            data=data or {},
        )
        self.stop_requested = self.on_step(update) or self.stop_requested

    def save(self) -> None:
        """Write a checkpoint, if there is anywhere to write it, and say so."""
        if self.checkpoints is None:
            return
        self.count_time()
        path = self.checkpoints.write(self.run.state(), fingerprint=self.facts)
        self.tell("checkpoint", {"path": str(path)})

    def count_time(self) -> None:
        """Add the seconds since the last call to the run's."""
        now = time.monotonic()
        self.run.counters.elapsed_seconds += now - self.resumed_at
        self.resumed_at = now

    def out_of_time(self) -> bool:
        """Whether the wall-clock budget is spent; never before the student has learnt anything."""
        self.count_time()
        limit, counters = self.run.config.budget.max_seconds, self.run.counters
        return limit is not None and counters.steps > 0 and counters.elapsed_seconds >= limit


def _train(loop: _Loop) -> None:
    """Rounds until the steps or the seconds are spent."""
    run = loop.run
    while run.counters.steps < run.schedule.total_steps and not loop.out_of_time():
        before = run.counters.steps
        try:
            outcome = train_round(run)
        except GeneratorCollapsed as error:
            if run.config.fallback is None:
                raise
            _fall_back(loop, error.detail)
            continue
        loop.tell("progress", {"losses": outcome.losses})
        if outcome.rolled_back is not None:
            loop.tell("rolled-back", {"reason": outcome.rolled_back})
        if run.schedule.evaluates(before, run.counters.steps):
            _evaluate(loop, outcome.losses)
            _leave_a_plateau(loop)
        if loop.stop_requested:
            loop.save()
            raise Stopped(f"stopped at step {run.counters.steps} as asked")
        if loop.checkpoints is not None and loop.checkpoints.due():
            loop.save()


def _leave_a_plateau(loop: _Loop) -> None:
    """Fall back where a poor student has not become better for long, and there is still time."""
    run = loop.run
    since = run.counters.steps - (run.ratchet.published_step or 0)
    stuck = since > PLATEAU * run.schedule.total_steps and run.curve[-1]["published"] < GOOD
    if run.config.fallback is not None and stuck and not run.schedule.consolidates(run.counters.steps):
        _fall_back(loop, f"no better student in {since} updates")


def _fall_back(loop: _Loop, reason: str) -> None:
    config = loop.run.config
    assert config.fallback is not None
    loop.tell("fell-back", {"reason": reason, "from": config.method, "to": config.fallback})
    loop.run.take_over(config.fallback)


def _evaluate(loop: _Loop, round_losses: dict[str, float]) -> None:
    run = loop.run
    scores = evaluate_on_probe(run)
    run.curve.append({"step": run.counters.steps, **scores.as_dict(), "losses": round_losses})
    if scores.replaced:
        loop.tell("published", {"agreement": scores.published})
    else:
        loop.tell("progress", {"losses": {}})  # the round's are told; the published student has a newer score
    if loop.measure is not None:
        networks = {"raw": run.student, "ema": run.average.network, "published": run.ratchet.published}
        loop.measure(run.counters.steps, networks)


def _finish(loop: _Loop) -> Distilled:
    """Train, complete the audit set, and leave a final checkpoint from which the rest can be repeated."""
    run = loop.run
    loop.tell("stage")
    if not run.done:
        _train(loop)
        if run.ratchet.published_step is None:
            _evaluate(loop, {})
        complete_audit(run)
        run.done = True
        loop.save()
    counters, published_step = run.counters, run.ratchet.published_step
    assert published_step is not None  # an evaluation has just seen to that
    return Distilled(
        student=fold(run.ratchet.published),
        published_step=published_step,
        probe_agreement=run.curve[-1]["published"],
        curve=run.curve,
        audit=run.audit.batch(),
        memory_bytes=run.memory.num_bytes,
        warnings=_warnings(run),
        student_updates=counters.steps,
        images_synthesized=counters.images_synthesized,
        teacher_forwards=counters.teacher_images,
        rollbacks=counters.rollbacks,
    )


def _warnings(run: Run) -> list[Notice]:
    found = list(run.memory.warnings)
    if run.counters.steps < run.schedule.total_steps:
        detail = f"the time limit ended the run at step {run.counters.steps} of {run.schedule.total_steps}"
        hint = "raise distillation.budget.max_seconds or lower distillation.budget.steps"
        found.append(Notice(code="budget-exhausted", detail=detail, hint=hint))
    return found
