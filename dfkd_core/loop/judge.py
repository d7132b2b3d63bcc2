"""Judge: decides which student is published, and holds the images on which the report measures that student.

Held-out images go to two sets. The probe compares students during the run. The audit set decides nothing: the report's
agreement is measured on it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core import heap
from dfkd_core.images.batch import Batch
from dfkd_core.images.reservoir import PixelCodec
from dfkd_core.loop.best_student import BestStudent
from dfkd_core.loop.counters import Counters
from dfkd_core.loop.examination import Examination
from dfkd_core.loop.image_sources import ImageSources
from dfkd_core.loop.position import Position
from dfkd_core.loop.probe import Probe, agrees
from dfkd_core.loop.student import StudentTrainer
from dfkd_core.networks.batchnorm import has_batchnorm
from dfkd_core.networks.teacher import Teacher
from dfkd_core.planning.rounds import AUDIT_PART, BATCHNORM_BATCH_SIZE, BATCHNORM_BATCHES, COSTLY_AUDIT
from dfkd_core.progress import Phase
from dfkd_core.rng import Streams
from dfkd_core.spec.config import Steadiness

FEW = 64  # images of an audit set for which there is no time


@dataclass(frozen=True, slots=True)
class Scores:
    """One evaluation: the share of the probe's images on which each student gives the teacher's class."""

    raw: float
    ema: float
    published: float
    published_step: int
    replaced: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the scores as a dict of plain values."""
        return asdict(self)


class Judge:
    """Holds probe, audit set and published student. `fp32_teacher` labels held-out images at any run precision."""

    def __init__(
        self, student: nn.Module, fp32_teacher: Teacher, steadiness: Steadiness, *, streams: Streams, relabels: bool
    ) -> None:
        space, num_classes = fp32_teacher.input_space, fp32_teacher.num_classes
        codec = PixelCodec(*space.bounds(), torch.float16)
        self.best = BestStudent(student, margin=steadiness.margin)
        self.probe = Probe(steadiness.probe_size, num_classes=num_classes, shape=space.shape, codec=codec)
        self.audit = Probe(steadiness.audit_size, num_classes=num_classes, shape=space.shape, codec=codec)
        self._audit_size = steadiness.audit_size
        self._fp32_teacher = fp32_teacher
        self._relabels = relabels  # the run's own labels are of lower precision
        self._streams = streams
        self._position = Position(fp32_teacher.engine.pulse)  # in the completion of the audit set
        self._examination = Examination(fp32_teacher.engine)

    def hold_out(self, batch: Batch) -> None:
        """Give new images to the audit set and to the probe; no other part of the run uses these images."""
        batch = self._with_fp32_labels(batch)
        num_audited = len(batch) // AUDIT_PART
        self.audit.observe(batch[:num_audited], generator=self._streams["audit"])
        self.probe.observe(batch[num_audited:], generator=self._streams["probe"])

    def evaluate(
        self, student: StudentTrainer, images: ImageSources, *, step: int, replay_share: float, margin_scale: float
    ) -> Scores:
        """Score the student, its average and the published student on the probe; publish the average if it is better.

        Before that, the average's BatchNorm statistics are estimated anew on training images of this step. After each
        chunk of images comes a safe point; a resumed run goes on with the chunks that are left.
        """
        probe, examination = self.probe, self._examination
        if has_batchnorm(student.average):
            self._reestimate(student.average, images, replay_share)
        self.expect_audit(images)
        raw = float(agrees(examination.answers("raw", student.network, probe), probe).double().mean())
        comparison = self.best.maybe_replace(
            student.average, probe, step=step, margin_scale=margin_scale, answers_of=examination.answers
        )
        examination.finish()
        return Scores(
            raw=raw,
            ema=comparison.candidate,
            published=comparison.published,
            published_step=self.best.published_step or 0,
            replaced=comparison.replaced,
        )

    def _reestimate(self, student: nn.Module, images: ImageSources, replay_share: float) -> None:
        """Estimate the student's BatchNorm statistics on batches of images as in training."""
        draws, total = self._streams["batchnorm"], BATCHNORM_BATCHES * BATCHNORM_BATCH_SIZE
        size = self._fp32_teacher.engine.compute.at_a_time(BATCHNORM_BATCH_SIZE)

        def draw() -> Tensor:
            batch = images.student_batch(size, replay_share=replay_share, generator=draws)
            return images.augmented(batch.images, generator=draws)

        self._examination.reestimate(student, draw, batches=total // size)

    def complete_audit(self, images: ImageSources, counters: Counters) -> None:
        """Fill an audit set that a short run has left small with new images. Call it after the last evaluation."""
        position, pulse = self._position, self._fp32_teacher.engine.pulse
        while (missing := self._audited_at_the_end(images) - len(self.audit)) > 0:
            self.expect_audit(images)
            heap.give_back()  # buffers of updates and evaluations do not fit those of an inversion
            for _ in position.once("audit images", phase=Phase.AUDIT):
                if images.optimised_at_once:
                    images.synthesizer.synthesize(None, rate=1.0)
            for _ in position.once("audit sample", phase=Phase.AUDIT):
                made = images.sample(missing, stream="audit-images")
                counters.images_synthesized += made
                if not images.optimised_at_once:  # optimised images were counted step by step
                    pulse.did(made)
            heap.give_back()
            before = len(self.audit)
            self._audit_more(images.labelled_sample())
            position.begin_round()
            if len(self.audit) == before:
                break  # the set is full for the classes that the synthesizer still makes
            pulse.safe_point()

    def _audited_at_the_end(self, images: ImageSources) -> int:
        """Return the size of the completed audit set."""
        return min(self._audit_size, COSTLY_AUDIT) if images.optimised_at_once else self._audit_size

    def expect_audit(self, images: ImageSources) -> None:
        """Tell how many images the audit set is likely to need at the end, from the classes of the newest images."""
        if not len(images.fresh):
            return
        classes = images.fresh.newest_classes.cpu()
        size = min(self._audited_at_the_end(images), self.audit.capacity)
        units = self.audit.images_to_reach(size, classes, lot=images.optimised_at_once)
        self._fp32_teacher.engine.pulse.expect(Phase.AUDIT, units)

    def audit_shapes(self, images: ImageSources) -> None:
        """Fill an empty audit set with a few procedural images; for a run that has no time to make other ones."""
        if not len(self.audit):
            self._audit_more(images.procedural.draw(FEW, generator=self._streams["audit-images"]))

    def _audit_more(self, batch: Batch) -> None:
        self.audit.observe(self._with_fp32_labels(batch), generator=self._streams["audit"])

    def _with_fp32_labels(self, batch: Batch) -> Batch:
        if not self._relabels or not len(batch):
            return batch
        return Batch(images=batch.images, teacher_logits=self._fp32_teacher.label(batch.images))

    def state(self) -> dict[str, Any]:
        """Return both sets and the published student; the keys are those of checkpoint files."""
        sets = {"probe": self.probe.state(), "audit": self.audit.state()}
        parts = {"audit_position": self._position.state(), "examination": self._examination.state()}
        return {"ratchet": self.best.state(), **sets, **parts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier judge."""
        self.best.restore(state["ratchet"])
        self.probe.restore(state["probe"])
        self.audit.restore(state["audit"])
        self._position.restore(state["audit_position"])
        self._examination.restore(state["examination"])
