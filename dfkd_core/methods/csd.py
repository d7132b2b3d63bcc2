"""CSD. Luo, Chen, Wang: Customizing Synthetic Data for Data-Free Student Learning, ICME 2023,
https://arxiv.org/abs/2307.04542.

A small probe learns to predict the class and the orientation of an image from the student's features. If the probe
fails on an image, the student has not yet learnt the image well. New images are optimised to make the probe fail.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.images.batch import Batch
from dfkd_core.images.reservoir import ClassReservoir, PixelCodec
from dfkd_core.methods.parts.image_method import ClassTargets, ImageMethod
from dfkd_core.methods.parts.image_starts import FreshGenerator
from dfkd_core.methods.parts.image_terms import Step, usual_terms
from dfkd_core.methods.parts.part import Part
from dfkd_core.methods.parts.past_statistics import PastStatistics
from dfkd_core.methods.parts.penultimate import classifier_of, student_features
from dfkd_core.networks import inversion_losses
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.csd import CsdOptions
from dfkd_core.rng import Streams

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4  # settings of the probe's SGD


class Csd(ImageMethod):
    """Optimises a new generator for each batch, after it has trained a new probe of the student."""

    def __init__(self, options: CsdOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        draws = streams["images"]
        probe = StudentProbe(options, teacher, draws=streams["csd-probe"], device=device)
        super().__init__(
            options,
            teacher,
            start=FreshGenerator(options, teacher, draws=draws, device=device),
            targets=ClassTargets(teacher.num_classes, draws=draws, device=device),
            terms=usual_terms(options, feedback=probe.failure),
            past=PastStatistics(options.bn_past),
            parts=[probe],
            draws=draws,
            device=device,
        )


class StudentProbe(Part):
    """Keeps images made so far, and trains a probe to predict class and transform from the student's features."""

    def __init__(self, options: CsdOptions, teacher: Teacher, *, draws: torch.Generator, device: torch.device) -> None:
        self._options = options
        self._space, self._num_classes = teacher.input_space, teacher.num_classes
        self._engine = teacher.engine
        self._draws = draws
        self._device = device
        self._probe: nn.Module | None = None  # each batch has a new probe
        self.restart()

    def restart(self) -> None:
        """Forget all images."""
        codec, shape = PixelCodec(*self._space.bounds()), self._space.shape
        capacity = self._options.probe_capacity
        self._bank = ClassReservoir(capacity, num_classes=self._num_classes, shape=shape, codec=codec)

    def prepare(self, student: nn.Module | None) -> dict[str, Tensor]:
        """Train a probe with new random weights on the current student; without kept images there is no probe."""
        self._probe = None
        if student is None or not self._options.adv_weight or not len(self._bank):
            return {}
        self._probe = self._new_probe(classifier_of(student).in_features)
        return {"probe": self._train(self._probe, student)}

    def _train(self, probe: nn.Module, student: nn.Module) -> Tensor:
        """Train the probe by SGD and return its last loss."""
        options = self._options
        optimizer = torch.optim.SGD(
            probe.parameters(), lr=options.probe_learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        loss = torch.zeros(())
        for _ in range(options.probe_steps):
            batch = self._bank.sample(options.probe_batch_size, generator=self._draws)
            classes = batch.teacher_logits.argmax(dim=1).to(self._device)
            with torch.no_grad():
                turned, labels = self._turned(batch.images.to(self._device), classes)
                features = torch.cat([self._features(student, some) for some in self._split(turned)])
            loss = inversion_losses.bounded_cross_entropy(probe(features), labels).mean()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
        probe.requires_grad_(False)
        return loss.detach()

    def _split(self, images: Tensor) -> tuple[Tensor, ...]:
        return torch.split(images, self._engine.compute.at_a_time(len(images)))

    def _features(self, student: nn.Module, images: Tensor) -> Tensor:
        features = student_features(student, images)
        self._engine.pulse.beat()
        return features

    def _new_probe(self, width: int) -> nn.Module:
        outputs = self._num_classes * self._options.num_transforms(self._space.shape)
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator, which must not change
            torch.manual_seed(int(torch.randint(2**31, (), generator=self._draws)))
            return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)).to(self._device)

    def _turned(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return all transforms of images (N, C, H, W), (T·N, C, H, W), and labels of class and transform, (T·N,)."""
        count = self._options.num_transforms(self._space.shape)
        turned = [transformed(images, self._options.transforms, index) for index in range(count)]
        return torch.cat(turned), torch.cat([classes * count + index for index in range(count)])

    def failure(self, step: Step) -> Tensor | None:
        """Return minus the probe's cross-entropy with class and transform, clamped at `adv_limit` for each image."""
        if self._probe is None or step.student is None:
            return None
        turned, labels = self._turned(step.images, step.targets.argmax(dim=1))  # (transforms · N, C, H, W)
        outputs = self._probe(student_features(step.student, turned))
        failure = inversion_losses.bounded_cross_entropy(outputs, labels)  # (transforms · N,)
        return -failure.clamp(max=self._options.adv_limit).mean()

    def finish(self, images: Tensor, targets: Tensor) -> None:
        """Keep some of the new images for later probes, and drop this batch's probe."""
        self._probe = None
        self._bank.add(Batch(images=images, teacher_logits=targets), generator=self._draws)

    def state(self) -> dict[str, Any]:
        """Return the kept images, and the probe of the batch in the making."""
        probe = None if self._probe is None else self._probe.state_dict()
        return {"bank": self._bank.state(), "csd_probe": probe}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` with earlier images."""
        self._bank.restore(state["bank"])
        self._probe = None
        if state["csd_probe"] is not None:
            self._probe = self._new_probe(state["csd_probe"]["0.weight"].shape[1]).requires_grad_(False)
            self._probe.load_state_dict(state["csd_probe"])


def transformed(images: Tensor, group: str, index: int) -> Tensor:
    """Apply the transform number `index` of the group to images (N, C, H, W); transform 0 changes nothing."""
    if not index:
        return images
    if group == "flips":
        return images.flip(3)
    quarters = index if images.shape[2] == images.shape[3] else 2
    return images.rot90(quarters, dims=(2, 3))
