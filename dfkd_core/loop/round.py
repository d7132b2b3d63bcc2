"""One round: the synthesizer learns, fresh and remembered images are drawn, the student learns, the memory learns."""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.errors import DistillationDiverged, GeneratorCollapsed
from dfkd_core.images.batch import Batch
from dfkd_core.images.procedural import ProceduralBank
from dfkd_core.loop.state import Run
from dfkd_core.loop.student_batches import Pools, as_seen, mixed, num_featured
from dfkd_core.networks import losses

HELD_OUT_SHARE = 1 / 8  # of a round's fresh images: two thirds for the probe, one for the audit
PROCEDURAL_CHUNK = 512  # images drawn, labelled and stored at a time
PROCEDURAL_HELD_OUT = 4  # one of so many new procedural images may be held out
COSTLY_AUDIT = 256  # images that an audit set is completed to where each of them is optimised
WARMUP_DRAWS = 2  # rounds of a warm-up that draw procedural images: enough to begin with
GOOD_EVERY = 20  # rounds between two snapshots of a healthy synthesizer


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round tells."""

    losses: dict[str, float]
    rolled_back: str | None = None  # the reason


def train_round(run: Run) -> Outcome:
    """One round. Until the warm-up is over the student does not learn."""
    warming_up = run.counters.warmup_rounds < run.config.method_options.warmup_rounds
    if run.counters.warmup_rounds < WARMUP_DRAWS or not warming_up:
        _draw_procedural(run)
    terms = _synthesize(run, warming_up=warming_up)
    rolled_back = None
    if warming_up:
        run.counters.warmup_rounds += 1
        if run.synthesizer.optimises_images:
            terms |= _update_memory(run, _draw_fresh(run))
    else:
        fresh = _draw_fresh(run)
        _draw_remembered(run)
        terms |= _teach_student(run)
        terms |= _update_memory(run, fresh)
        rolled_back = _check_collapse(run, fresh)
        _restart_if_due(run)
    run.counters.rounds += 1
    return Outcome(losses=_finite(terms), rolled_back=rolled_back)


def _synthesize(run: Run, *, warming_up: bool) -> dict[str, Tensor]:
    step = run.counters.steps
    if run.schedule.consolidates(step) and not warming_up:
        return {}
    terms: dict[str, Tensor] = {}
    for _ in range(run.config.method_options.updates_per_round):
        student = None if warming_up else run.compiled_student
        terms = run.synthesizer.synthesize(student, rate=run.schedule.generator_rate(step))
        run.memory.on_generator_update(run.synthesizer)
        run.counters.images_synthesized += run.config.method_options.batch_size
    return terms


def _draw_procedural(run: Run) -> None:
    """New procedural images for the bank. A part is held out, of the same kinds that the bank keeps."""
    options = run.config.procedural
    if not options.share:
        return
    for count in _chunks(options.images_per_round):
        _offer(run, run.procedural, run.procedural.draw(count, generator=run.streams["procedural"]))
    for count in _chunks(options.refinement.images_per_round if options.refinement.share else 0):
        _offer(run, run.refined, run.refined.refined(count, generator=run.streams["refined"]))


def _chunks(count: int) -> list[int]:
    whole, rest = divmod(count, PROCEDURAL_CHUNK)
    return [PROCEDURAL_CHUNK] * whole + [rest] * (rest > 0)


def _offer(run: Run, bank: ProceduralBank, new: Batch) -> None:
    """Show new images to a bank, but for those that may be held out."""
    lots = run.streams["procedural-lots"]
    run.counters.images_synthesized += len(new)
    held_out = _part(new, 0, len(new) // PROCEDURAL_HELD_OUT)
    if len(held_out):
        odds = bank.weights(held_out)
        chosen = (torch.rand(len(odds), generator=lots, dtype=odds.dtype) * odds.max() < odds).to(run.device)
        _hold_out(run, Batch(images=held_out.images[chosen], teacher_logits=held_out.teacher_logits[chosen]))
    bank.add(_part(new, len(held_out), len(new)), generator=lots)


def _draw_fresh(run: Run) -> Batch | None:
    """New images with their labels, if there are any. A part is held out; the rest joins those of the last rounds."""
    count = run.config.training.fresh_batches * run.config.method_options.batch_size
    images = run.synthesizer.sample(count, generator=run.streams["fresh"])
    if not len(images):
        return None
    if not run.synthesizer.optimises_images:  # those were counted when they were made
        run.counters.images_synthesized += len(images)
    held_out = max(3, round(len(images) * HELD_OUT_SHARE))
    _hold_out(run, _labelled(run, run.valid(images[:held_out])))
    fresh = _labelled(run, images[held_out:])
    run.fresh = [*run.fresh, fresh][-run.config.training.fresh_rounds :]
    return fresh


def _update_memory(run: Run, fresh: Batch | None) -> dict[str, Tensor]:
    return {} if fresh is None else run.memory.remember(fresh)


def _hold_out(run: Run, batch: Batch) -> None:
    """Give new images to the audit set and to the probe, as the student would see them; nothing else ever sees them."""
    batch = _examined(run, batch)
    audited = len(batch) // 3
    run.audit.observe(_part(batch, 0, audited), generator=run.streams["audit"])
    run.probe.observe(_part(batch, audited, len(batch)), generator=run.streams["probe"])


def complete_audit(run: Run) -> None:
    """Fill an audit set that a short run has left small with new images, once nothing is left to be decided."""
    synthesizer, wanted = run.synthesizer, run.config.steadiness.audit_size
    if synthesizer.optimises_images:
        wanted = min(wanted, COSTLY_AUDIT)
    while (missing := wanted - len(run.audit)) > 0:
        if synthesizer.optimises_images:
            synthesizer.synthesize(None, rate=1.0)
        images = synthesizer.sample(missing, generator=run.streams["audit-images"])
        run.counters.images_synthesized += len(images)
        before = len(run.audit)
        run.audit.observe(_examined(run, _labelled(run, run.valid(images))), generator=run.streams["audit"])
        if len(run.audit) == before:
            break  # full, or nothing new to be had


def _labelled(run: Run, images: Tensor) -> Batch:
    return Batch(images=images, teacher_logits=run.teacher.label(images))


def _examined(run: Run, batch: Batch) -> Batch:
    """The batch with the labels that the teacher gives in fp32."""
    if run.fp32_teacher is run.teacher or not len(batch):
        return batch
    return Batch(images=batch.images, teacher_logits=run.fp32_teacher.label(batch.images))


def _part(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(images=batch.images[start:stop], teacher_logits=batch.teacher_logits[start:stop])


def _draw_remembered(run: Run) -> None:
    training = run.config.training
    run.memory.observe_student(run.compiled_student)
    replayed = run.memory.replay(training.replays_per_round, generator=run.streams["replay"])
    if replayed is not None:
        run.remembered = [*run.remembered, replayed][-training.fresh_rounds :]


def _teach_student(run: Run) -> dict[str, Tensor]:
    """The round's student updates; fewer at the very end, so that the total is exact."""
    left = run.schedule.total_steps - run.counters.steps
    pools = Pools.of(run)
    loss = torch.zeros(())
    for _ in range(min(left, run.config.training.updates_per_round)):
        loss = _update_student(run, mixed(run, pools, run.config.training.batch_size, generator=run.streams["student"]))
        run.counters.steps += 1
    return {"student": loss}


def _update_student(run: Run, batch: Batch) -> Tensor:
    """One step of the student's optimiser and of its average."""
    training = run.config.training
    rate = run.schedule.student_rate(run.counters.steps)
    for group in run.optimizer.param_groups:
        group["lr"] = training.learning_rate * rate
    images, student_logits, teacher_logits, transferred = _compared(run, batch, rate=rate)
    loss = student_loss(run, student_logits, teacher_logits)
    if transferred is not None:
        loss = loss + transferred
    if training.anchor_weight:
        with torch.no_grad():
            anchor = run.average.network(images)
        loss = loss + training.anchor_weight * losses.kl_divergence(student_logits, anchor, temperature=1.0)
    run.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    if training.gradient_clip is not None:
        nn.utils.clip_grad_norm_(run.student.parameters(), training.gradient_clip)
    run.optimizer.step()
    run.transfer.step(rate=rate)
    run.average.update(run.student)
    return loss.detach()


def _compared(run: Run, batch: Batch, *, rate: float) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Images (N, C, H, W) as the student sees them, its logits and the teacher's, and what is transferred beside them.

    Labels that are known are taken as they are where the images do not change.
    """
    training, student = run.config.training, run.compiled_student.train()
    changes = training.augmentation.active or training.valid_range
    images = as_seen(run, batch.images, generator=run.streams["augment"]) if changes else batch.images
    if run.transfer.active:
        return images, *run.transfer.compare(images, featured=num_featured(run, len(images)), rate=rate)
    return images, student(images), run.teacher.label(images) if changes else batch.teacher_logits, None


def student_loss(run: Run, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """The loss that `training.loss` names, plus the cross-entropy with the teacher's class where it has a weight."""
    training = run.config.training
    if training.loss == "kl":
        loss = losses.kl_divergence(student_logits, teacher_logits, temperature=training.temperature)
    else:
        loss = losses.logit_l1(student_logits, teacher_logits)
    if training.hard_weight:
        loss = loss + training.hard_weight * F.cross_entropy(student_logits, teacher_logits.argmax(dim=1))
    return loss


def _check_collapse(run: Run, fresh: Batch | None) -> str | None:
    """Keep a copy of a healthy synthesizer now and then; go back to it when the guard says it collapsed."""
    if fresh is None or run.schedule.consolidates(run.counters.steps):
        return None
    reason = run.guard.check(fresh)
    if reason is not None:
        _roll_back(run, reason)
    elif run.guard.healthy and run.counters.rounds % GOOD_EVERY == 0:
        run.good.append(copy.deepcopy(run.synthesizer.state()))
        del run.good[:-2]
        run.counters.rollbacks_in_a_row = 0
    return reason


def _restart_if_due(run: Run) -> None:
    """Let the generator start anew every so many teaching rounds; its warm-up then goes without the student again."""
    every, counters = run.config.method_options.restart_rounds, run.counters
    counters.rounds_since_start += 1
    if every and counters.rounds_since_start >= every and not run.schedule.consolidates(counters.steps):
        run.synthesizer.restart()
        run.memory.on_generator_update(run.synthesizer)
        counters.rounds_since_start = counters.warmup_rounds = 0
        run.good = [copy.deepcopy(run.synthesizer.state())]


def _roll_back(run: Run, reason: str) -> None:
    run.counters.rollbacks += 1
    run.counters.rollbacks_in_a_row += 1
    if run.counters.rollbacks_in_a_row > run.config.steadiness.max_rollbacks:
        raise GeneratorCollapsed(
            f"{reason}; {run.counters.rollbacks_in_a_row - 1} roll-backs did not help",
            hint="lower distillation.method_options.learning_rate or raise its balance_weight",
        )
    run.synthesizer.restore(run.good[0])
    for _ in range(run.counters.rollbacks_in_a_row):
        run.synthesizer.back_off()


def _finite(terms: dict[str, Tensor]) -> dict[str, float]:
    values = {name: float(value) for name, value in terms.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise DistillationDiverged(
            f"not a finite number any more: {', '.join(broken)}",
            hint="lower distillation.training.learning_rate or distillation.method_options.learning_rate",
        )
    return values
