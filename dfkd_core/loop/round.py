"""One round of the loop: see `train_round`, which reads like the algorithm in `distill`."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_core.errors import DistillationDiverged
from dfkd_core.images.batch import Batch
from dfkd_core.loop.state import Run
from dfkd_core.planning.rounds import WARMUP_DRAWS


@dataclass(frozen=True, slots=True)
class RoundResult:
    """The result of one round."""

    losses: dict[str, float]
    rolled_back: str | None = None  # the reason


def train_round(run: Run) -> RoundResult:
    """Run one round. Until the synthesizer's warm-up is over the student does not learn.

    Raises:
        DistillationDiverged: if a loss is not finite.
        GeneratorCollapsed: if rolling the synthesizer back does not help any more.
    """
    warmed_up, rolled_back = run.counters.warmup_rounds, None
    warming_up = warmed_up < run.config.method_options.warmup_rounds
    if not warming_up or warmed_up < WARMUP_DRAWS:
        _draw_procedural(run)
    losses = _train_synthesizer(run, warming_up=warming_up)
    if warming_up:
        run.counters.warmup_rounds += 1
        if run.images.synthesizer.optimises_images:  # costly images are kept from the first one on
            losses |= _update_memory(run, _draw_fresh(run))
    else:
        fresh = _draw_fresh(run)
        _draw_remembered(run)
        losses |= _teach_student(run)
        losses |= _update_memory(run, fresh)
        rolled_back = _check_collapse(run, fresh)
        _restart_if_due(run)
    run.counters.rounds += 1
    return RoundResult(losses=_finite(losses), rolled_back=rolled_back)


def _draw_procedural(run: Run) -> None:
    for held_out in run.images.draw_procedural():
        run.judge.hold_out(held_out)


def _train_synthesizer(run: Run, *, warming_up: bool) -> dict[str, Tensor]:
    """Update the synthesizer, except during consolidation. The student's feedback joins after warm-up."""
    step, options, synthesizer = run.counters.steps, run.config.method_options, run.images.synthesizer
    losses: dict[str, Tensor] = {}
    if run.schedule.consolidates(step) and not warming_up:
        return losses
    student = None if warming_up else run.student.compiled
    for _ in range(options.updates_per_round):
        losses = synthesizer.synthesize(student, rate=run.schedule.generator_rate(step))
        run.memory.on_generator_update(synthesizer)
        run.counters.images_synthesized += options.batch_size
    return losses


def _draw_fresh(run: Run) -> Batch | None:
    """New images of the synthesizer to learn from, if it has any."""
    drawn = run.images.draw_fresh()
    if drawn is None:
        return None
    held_out, fresh = drawn
    run.judge.hold_out(held_out)
    return fresh


def _draw_remembered(run: Run) -> None:
    run.memory.observe_student(run.student.compiled)
    replayed = run.memory.replay(run.config.training.replays_per_round, generator=run.streams["replay"])
    if replayed is not None:
        run.images.add_remembered(replayed)


def _teach_student(run: Run) -> dict[str, Tensor]:
    """Update the student; less often in the last round, so that the total is exact."""
    training, schedule, counters = run.config.training, run.schedule, run.counters
    loss = torch.zeros(())
    for _ in range(min(training.updates_per_round, schedule.total_steps - counters.steps)):
        step = counters.steps
        batch = run.images.student_batch(  # (B, C, H, W) with teacher logits (B, num_classes)
            training.batch_size, replay_share=schedule.replay_share_at(step), generator=run.streams["student"]
        )
        loss = run.student.update(batch, rate=schedule.student_rate(step))
        counters.steps += 1
    return {"student": loss}


def _update_memory(run: Run, fresh: Batch | None) -> dict[str, Tensor]:
    return {} if fresh is None else run.memory.remember(fresh)


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


def _finite(losses: dict[str, Tensor]) -> dict[str, float]:
    values = {name: float(value) for name, value in losses.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise DistillationDiverged(
            f"not a finite number any more: {', '.join(broken)}",
            hint="lower distillation.training.learning_rate or distillation.method_options.learning_rate",
        )
    return values
