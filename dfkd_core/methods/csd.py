"""CSD. Luo, Chen, Wang: Customizing Synthetic Data for Data-Free Student Learning, ICME 2023,
https://arxiv.org/abs/2307.04542.

A small probe learns to read class and orientation of an image off the student's features. Where it fails, the student
has not understood the image yet; new images are made for that.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.images.batch import Batch
from dfkd_core.images.reservoir import ClassReservoir, PixelCodec
from dfkd_core.methods.parts.image_method import RedrawnMethod
from dfkd_core.methods.parts.penultimate import classifier_of, student_features
from dfkd_core.networks import inversion_losses
from dfkd_core.networks.hooks import evaluating
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.csd import CsdOptions
from dfkd_core.rng import Streams

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4  # of the probe


class Csd(RedrawnMethod[CsdOptions]):
    """A generator for every batch, and a probe for every round."""

    def __init__(self, options: CsdOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        super().__init__(options, teacher, streams=streams, device=device)
        self._probe_draws = streams["csd-probe"]
        self._probe: nn.Module = nn.Identity()
        self._bank = self._empty_bank()

    def _empty_bank(self) -> ClassReservoir:
        space = self._teacher.input_space
        capacity, classes = self._options.probe_capacity, self._teacher.num_classes
        return ClassReservoir(capacity, num_classes=classes, shape=space.shape, codec=PixelCodec(*space.bounds()))

    def synthesize(self, student: nn.Module | None, *, rate: float) -> dict[str, Tensor]:
        """One batch, against a new probe of the student as it is now."""
        if student is not None and self._options.adv_weight and len(self._bank):
            with evaluating(student):
                told = {"probe": self._learn_probe(student)}
            return told | super().synthesize(student, rate=rate)
        return super().synthesize(None, rate=rate)

    def _learn_probe(self, student: nn.Module) -> Tensor:
        """A probe with random weights, trained on the images made so far; returns its last loss."""
        options = self._options
        self._probe = self._new_probe(classifier_of(student).in_features)
        optimizer = torch.optim.SGD(
            self._probe.parameters(), lr=options.probe_learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        loss = torch.zeros(())
        for _ in range(options.probe_steps):
            batch = self._bank.sample(options.probe_batch_size, generator=self._probe_draws)
            classes = batch.teacher_logits.argmax(dim=1).to(self._device)
            with torch.no_grad():
                turned, labels = self._turned(batch.images.to(self._device), classes)
                features = student_features(student, turned)
            loss = inversion_losses.bounded_cross_entropy(self._probe(features), labels).mean()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
        self._probe.requires_grad_(False)
        return loss.detach()

    def _new_probe(self, width: int) -> nn.Module:
        outputs = self._teacher.num_classes * num_transforms(self._options.transforms, self._teacher.input_space.shape)
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator; that must not show
            torch.manual_seed(int(torch.randint(2**31, (), generator=self._probe_draws)))
            return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)).to(self._device)

    def _turned(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """All transforms of images (N, C, H, W) behind one another, and the joint labels of class and transform."""
        count = num_transforms(self._options.transforms, self._teacher.input_space.shape)
        turned = [transformed(images, self._options.transforms, index) for index in range(count)]
        return torch.cat(turned), torch.cat([classes * count + index for index in range(count)])

    def _adversarial(self, images: Tensor, logits: Tensor, targets: Tensor, student: nn.Module) -> Tensor:
        """Minus the probe's cross-entropy with class and transform, at most `adv_limit` for each image."""
        turned, labels = self._turned(images, targets.argmax(dim=1))
        outputs = self._probe(student_features(student, turned))
        failure = inversion_losses.bounded_cross_entropy(outputs, labels)
        return -failure.clamp(max=self._options.adv_limit).mean()

    def _finish(self, images: Tensor, targets: Tensor) -> None:
        super()._finish(images, targets)
        self._bank.add(Batch(images=images, teacher_logits=targets), generator=self._probe_draws)

    def restart(self) -> None:
        """Forget all images."""
        super().restart()
        self._bank = self._empty_bank()

    def state(self) -> dict[str, Any]:
        """With the probe's images; the probe itself does not outlive a batch."""
        bank = {name: tensor.clone() for name, tensor in self._bank.state().items()}
        return {**super().state(), "bank": bank}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with earlier images."""
        super().restore(state)
        self._bank.restore(state["bank"])


def num_transforms(group: str, shape: tuple[int, int, int]) -> int:
    """Images that are not square are turned by half a circle only."""
    return {"rotations": 4 if shape[1] == shape[2] else 2, "flips": 2, "none": 1}[group]


def transformed(images: Tensor, group: str, index: int) -> Tensor:
    """Images (N, C, H, W) under the transform of that index; 0 leaves them as they are."""
    if not index:
        return images
    if group == "flips":
        return images.flip(3)
    quarters = index if images.shape[2] == images.shape[3] else 2
    return images.rot90(quarters, dims=(2, 3))
