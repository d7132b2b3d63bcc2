"""One round of the loop: see `train_round`, which reads like the algorithm in `distill`.

A round is a sequence of pieces. `run.position` counts which of them are done, so a run can stop between any two of them
and go on there.
"""

import math
from dataclasses import dataclass

from dfkd_core import heap
from dfkd_core.errors import DistillationDiverged
from dfkd_core.images.batch import Batch
from dfkd_core.loop.state import Run
from dfkd_core.planning.rounds import WARMUP_DRAWS
from dfkd_core.progress import Phase


@dataclass(frozen=True, slots=True)
class RoundResult:
    """The result of one round."""

    losses: dict[str, float]
    rolled_back: str | None = None  # the reason


def train_round(run: Run) -> RoundResult:
    """Run one round, or what is left of it. Until the synthesizer's warm-up is over the student does not learn.

    Raises:
        Interrupted: if the run has to stop in the middle of the round.
        DistillationDiverged: if a loss is not finite.
        GeneratorCollapsed: if rolling the synthesizer back does not help any more.
    """
    warmed_up, rolled_back = run.counters.warmup_rounds, None
    warming_up = warmed_up < run.config.method_options.warmup_rounds
    if not warming_up or warmed_up < WARMUP_DRAWS:
        _draw_procedural(run)
    heap.give_back()  # buffers that were freed before do not fit those of an inversion
    _train_synthesizer(run, warming_up=warming_up)
    if warming_up:
        if run.images.synthesizer.optimises_images:  # costly images are kept from the first one on
            _update_memory(run, _draw_fresh(run))
        run.counters.warmup_rounds += 1
    else:
        fresh = _draw_fresh(run)
        _draw_remembered(run)
        heap.give_back()
        _teach_student(run)
        _update_memory(run, fresh)
        rolled_back = _check_collapse(run, fresh)
        _restart_if_due(run)
    run.counters.rounds += 1
    run.losses = run.position.losses
    run.position.begin_round()
    return RoundResult(losses=_finite(run.losses), rolled_back=rolled_back)


def _draw_procedural(run: Run) -> None:
    images, position = run.images, run.position
    for unit in position.units("procedural", images.num_procedural_chunks, phase=Phase.PROCEDURAL):
        for held_out in images.draw_procedural(unit):
            run.judge.hold_out(held_out)
    for unit in position.units("refined", images.num_refined_chunks, phase=Phase.REFINEMENT):
        for held_out in images.draw_refined(unit):
            run.judge.hold_out(held_out)


def _train_synthesizer(run: Run, *, warming_up: bool) -> None:
    """Update the synthesizer, except during consolidation. The student's feedback joins after warm-up."""
    step, options, synthesizer = run.counters.steps, run.config.method_options, run.images.synthesizer
    if run.schedule.consolidates(step) and not warming_up:
        return
    student, phase = (None, Phase.WARM_UP) if warming_up else (run.student.compiled, Phase.SYNTHESIS)
    for _ in run.position.units("synthesis", options.updates_per_round, phase=phase):
        run.position.note(synthesizer.synthesize(student, rate=run.schedule.generator_rate(step)))
        run.memory.on_generator_update(synthesizer)
        run.counters.images_synthesized += options.batch_size


def _draw_fresh(run: Run) -> Batch | None:
    """New images of the synthesizer to learn from, if it has any."""
    for _ in run.position.once("sample", phase=Phase.FRESH):
        run.images.sample_fresh()
    for _ in run.position.once("fresh", phase=Phase.FRESH):
        labelled = run.images.label_fresh()
        if labelled is not None:
            held_out, fresh = labelled
            run.judge.hold_out(held_out)
            run.images.add_fresh(fresh)
            run.pulse.did(len(held_out) + len(fresh))
    return run.images.newest


def _draw_remembered(run: Run) -> None:
    for _ in run.position.once("remembered", phase=Phase.MEMORY):
        run.memory.observe_student(run.student.compiled)
        replayed = run.memory.replay(run.config.training.replays_per_round, generator=run.streams["replay"])
        if replayed is not None:
            run.images.add_remembered(replayed)


def _teach_student(run: Run) -> None:
    """Update the student; less often in the last round, so that the total is exact."""
    training, schedule, counters = run.config.training, run.schedule, run.counters
    left = schedule.total_steps - counters.steps
    count = min(training.updates_per_round, run.position.done("teaching") + left)
    for _ in run.position.units("teaching", count, phase=Phase.STUDENT):
        step = counters.steps
        batch = run.images.student_batch(  # (B, C, H, W) with teacher logits (B, num_classes)
            training.batch_size, replay_share=schedule.replay_share_at(step), generator=run.streams["student"]
        )
        run.position.note({"student": run.student.update(batch, rate=schedule.student_rate(step))})
        counters.steps += 1
        run.pulse.did(1)


def _update_memory(run: Run, fresh: Batch | None) -> None:
    if fresh is not None:
        for _ in run.position.once("memory", phase=Phase.MEMORY):
            run.position.note(run.memory.remember(fresh))
            run.pulse.did(1)


def _check_collapse(run: Run, fresh: Batch | None) -> str | None:
    """Return the reason for which the synthesizer was rolled back, if it was.

    During consolidation it is frozen anyway.
    """
    if fresh is None or run.schedule.consolidates(run.counters.steps):
        return None
    return run.images.check_collapse(fresh)


def _restart_if_due(run: Run) -> None:
    """Let the synthesizer start anew every `restart_rounds` teaching rounds; it then warms up without the student."""
    every, counters = run.config.method_options.restart_rounds, run.counters
    counters.rounds_since_start += 1
    if every and counters.rounds_since_start >= every and not run.schedule.consolidates(counters.steps):
        run.images.restart_synthesizer()
        run.memory.on_generator_update(run.images.synthesizer)


def _finite(losses: dict[str, float]) -> dict[str, float]:
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    if broken:
        raise DistillationDiverged(
            f"not a finite number any more: {', '.join(broken)}",
            hint="lower distillation.training.learning_rate or distillation.method_options.learning_rate",
        )
    return losses
