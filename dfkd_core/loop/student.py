"""StudentTrainer: the student's update, and the running average of its weights, which is what gets published.

images = augmented batch                                            # (N, C, H, W)
loss = distillation loss(student's logits, teacher's logits)        # (N, num_classes) both
     + feature and attention transfer + anchor to the average
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
from dfkd_core.networks.feature_distillation import Transfer
from dfkd_core.networks.teacher import Teacher
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
        self._draws = streams["augment"]
        self._optimizer = build_optimizer(network, config.training)
        self._average = AveragedStudent(network, decay=average_decay(config))
        features = config.procedural.share > 0 or images.synthesizer.optimises_images
        self._transfer = Transfer(self.compiled, teacher, config.training, features=features)

    @property
    def average(self) -> nn.Module:
        """The network that holds the running average of the student's weights, in eval mode."""
        return self._average.network

    def update(self, batch: Batch, *, rate: float) -> Tensor:
        """Take one step of the optimiser at `rate` times its learning rate, let the average follow, return the loss.

        `batch` holds images (N, C, H, W) with the teacher's logits (N, num_classes).
        """
        training = self._training
        for group in self._optimizer.param_groups:
            group["lr"] = training.learning_rate * rate
        images, student_logits, teacher_logits, transferred = self._compare(batch, rate=rate)
        loss = distillation_loss(student_logits, teacher_logits, training)
        if transferred is not None:
            loss = loss + transferred
        if training.anchor_weight:
            with torch.no_grad():
                average_logits = self.average(images)  # (N, num_classes)
            loss = loss + training.anchor_weight * losses.kl_divergence(student_logits, average_logits, temperature=1.0)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), training.gradient_clip)
        self._optimizer.step()
        self._transfer.step(rate=rate)
        self._average.update(self.network)
        return loss.detach()

    def _compare(self, batch: Batch, *, rate: float) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return the augmented images, the logits of student and teacher, and the loss of `Transfer`.

        The teacher labels images that augmentation has changed. For unchanged images its known logits are used.
        """
        student, training = self.compiled.train(), self._training
        changes = training.augmentation.active or training.valid_range
        images = self._images.augmented(batch.images, generator=self._draws) if changes else batch.images
        if self._transfer.active:
            num_featured = self._images.num_featured(len(images))
            return images, *self._transfer.compare(images, featured=num_featured, rate=rate)
        return images, student(images), self._teacher.label(images) if changes else batch.teacher_logits, None

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
