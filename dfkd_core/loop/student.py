"""StudentTrainer: the student's update, and the running average of its weights, which is what gets published.

images = augmented batch                                            # (N, C, H, W)
loss = distillation loss(student's logits, teacher's logits)        # (N, num_classes) both
     + feature and attention transfer + anchor to the average
gradient of the loss, added up over micro-batches of the images
step of the optimiser; step of the average
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.images.batch import Batch
from dfkd_core.loop.image_sources import ImageSources
from dfkd_core.networks import losses
from dfkd_core.networks.batchnorm import has_batchnorm
from dfkd_core.networks.feature_distillation import Transfer
from dfkd_core.networks.hooks import buffers_kept_on_error
from dfkd_core.networks.teacher import Teacher
from dfkd_core.notice import Notice
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillConfig, Training

AVERAGE_SPAN = 0.05  # largest share of the run that the average spans; it must follow the learning rate's decay


class StudentTrainer:
    """Holds the student's network, its optimiser, its average, and the losses on the teacher's inner layers."""

    def __init__(
        self, network: nn.Module, teacher: Teacher, images: ImageSources, config: DistillConfig, *, streams: Streams
    ) -> None:
        self.network = network.requires_grad_(True)
        self.compiled = teacher.engine.wrap(network)  # the same weights, computed in the run's precision
        self._teacher = teacher
        self._images = images
        self._training = config.training
        self._changes = config.training.augmentation.active or config.training.valid_range
        self._micro_batch = config.compute.micro_batch
        self._draws = streams["augment"]
        self._optimizer = build_optimizer(network, config.training)
        self._average = AveragedStudent(network, decay=average_decay(config))
        features = config.procedural.share > 0 or images.synthesizer.optimises_images
        self._transfer = Transfer(self.compiled, teacher, config.training, features=features)

    @property
    def average(self) -> nn.Module:
        """The network that holds the running average of the student's weights, in eval mode."""
        return self._average.network

    @property
    def warnings(self) -> list[Notice]:
        """A warning if the statistics of the student's BatchNorms are not those of whole batches."""
        size = self._training.batch_size
        count = num_micro_batches(size, self._micro_batch)
        if count == 1 or not has_batchnorm(self.network):
            return []
        detail = (
            f"the student's BatchNorms saw the statistics of {-(-size // count)} images at a time, not of all {size}"
        )
        hint = "lower distillation.training.batch_size, or let the operator raise DFKD_ACTIVATION_BYTES"
        return [Notice(code="micro-batch-statistics", detail=detail, hint=hint)]

    def update(self, batch: Batch, *, rate: float) -> Tensor:
        """Take one step of the optimiser at `rate` times its learning rate, let the average follow, return the loss.

        `batch` holds images (N, C, H, W) with the teacher's logits (N, num_classes). The gradients of micro-batches add
        up to those of the batch; each micro-batch is a sample of the whole mixture. An update that is abandoned leaves
        the student as it was.
        """
        training = self._training
        for group in self._optimizer.param_groups:
            group["lr"] = training.learning_rate * rate
        with buffers_kept_on_error(self.network):
            batch = self._augmented(batch)
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._accumulate(batch, rate=rate)
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), training.gradient_clip)
        self._optimizer.step()
        self._transfer.step()
        self._average.update(self.network)
        return loss

    def _augmented(self, batch: Batch) -> Batch:
        """Return the batch as the student sees it; the teacher's logits may be those of the unchanged images."""
        if not self._changes:
            return batch
        images = self._images.augmented(batch.images, generator=self._draws)
        return Batch(images=images, teacher_logits=batch.teacher_logits)

    def _accumulate(self, batch: Batch, *, rate: float) -> Tensor:
        """Add up the gradients of the micro-batches, and return the loss of the batch, detached."""
        featured, count = self._images.num_featured(len(batch)), num_micro_batches(len(batch), self._micro_batch)
        if count == 1:
            loss = self._loss(batch, featured=featured, rate=rate)
            torch.autograd.backward(loss)
            return loss.detach()
        total = torch.zeros((), device=batch.images.device)
        for first in range(count):
            part = batch[first::count]
            loss = self._loss(part, featured=len(range(first, featured, count)), rate=rate) * (len(part) / len(batch))
            torch.autograd.backward(loss)
            total += loss.detach()
            self._teacher.engine.pulse.beat()
        return total

    def _loss(self, batch: Batch, *, featured: int, rate: float) -> Tensor:
        """Return the loss of augmented images; features are compared on the first `featured` of them."""
        training, images = self._training, batch.images
        student_logits, teacher_logits, transferred = self._compare(batch, featured=featured, rate=rate)
        loss = distillation_loss(student_logits, teacher_logits, training)
        if transferred is not None:
            loss = loss + transferred
        if training.anchor_weight:
            with torch.no_grad():
                average_logits = self.average(images)  # (N, num_classes)
            loss = loss + training.anchor_weight * losses.kl_divergence(student_logits, average_logits, temperature=1.0)
        return loss

    def _compare(self, batch: Batch, *, featured: int, rate: float) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the logits of student and teacher, and the loss of `Transfer`.

        The teacher labels images that augmentation has changed. For unchanged images its known logits are used.
        """
        student, images = self.compiled.train(), batch.images
        if self._transfer.active:
            return self._transfer.compare(images, featured=featured, rate=rate)
        return student(images), self._teacher.label(images) if self._changes else batch.teacher_logits, None

    def state(self) -> dict[str, Any]:
        """Return everything that training changes; the keys are those of checkpoint files."""
        return {
            "student": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.state(),
            "transfer": self._transfer.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier trainer."""
        self.network.load_state_dict(state["student"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average.restore(state["average"])
        self._transfer.restore(state["transfer"])


def num_micro_batches(size: int, most: int | None) -> int:
    """Return into how many micro-batches of at most `most` images, but at least two, a batch of `size` is divided."""
    return 1 if most is None else min(-(-size // most), max(1, size // 2))


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, training: Training) -> Tensor:
    """Return the loss that `training.loss` names, plus cross-entropy with the teacher's class if it has a weight."""
    if training.loss == "kl":
        loss = losses.kl_divergence(student_logits, teacher_logits, temperature=training.temperature)
    else:
        loss = losses.logit_l1(student_logits, teacher_logits)
    if training.hard_weight:
        loss = loss + training.hard_weight * F.cross_entropy(student_logits, teacher_logits.argmax(dim=1))
    return loss


def build_optimizer(student: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Build the student's optimiser; its learning rate is set before each update."""
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            student.parameters(),
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )
    return torch.optim.Adam(student.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)


def average_decay(config: DistillConfig) -> float:
    """Return the average's decay: the configured one, or less if the average would span too much of a short run."""
    longest = 1 - 1 / max(1.0, AVERAGE_SPAN * config.budget.steps)
    return min(config.training.ema_decay, longest)


class AveragedStudent:
    """An exponential moving average of the student's weights, held by `network`.

    The decay is smaller in the first updates, so that the average does not lag behind (bias correction).
    """

    def __init__(self, student: nn.Module, *, decay: float) -> None:
        self.network = copy.deepcopy(student).eval().requires_grad_(False)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move the average towards the student's weights, and copy its buffers."""
        self._updates += 1
        decay = min(self._decay, self._updates / (self._updates + 9))
        torch._foreach_lerp_(list(self.network.parameters()), list(student.parameters()), 1 - decay)
        for average, current in zip(self.network.buffers(), student.buffers(), strict=True):
            average.copy_(current)

    def state(self) -> dict[str, Any]:
        """Return the weights and the number of updates."""
        return {"network": self.network.state_dict(), "updates": self._updates}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier average."""
        self.network.load_state_dict(state["network"])
        self._updates = state["updates"]
