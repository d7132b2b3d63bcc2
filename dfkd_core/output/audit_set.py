"""AuditSet: the held-out images on which the report measures the student, as the teacher's file takes them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_core.loop.probe import Probe
from dfkd_core.networks.interface import on_grid
from dfkd_core.networks.teacher import Teacher

CHUNK = 64  # images that the teacher labels at a time, at most


@dataclass(frozen=True, slots=True)
class AuditSet:
    """The images of a probe with the teacher's logits, of which only some are in memory at a time."""

    probe: Probe
    teacher: Teacher
    teacher_logits: Tensor  # (N, num_classes), on the CPU

    @staticmethod
    def of(probe: Probe, teacher: Teacher, *, device: torch.device) -> "AuditSet":
        """Return the audit set of a run. If the teacher takes whole pixels only, images are rounded and labelled again.

        The teacher is on `device`.
        """
        if not teacher.input_space.whole:
            return AuditSet(probe, teacher, probe.teacher_logits)
        chunks = probe.split(teacher.engine.compute.at_a_time(CHUNK))
        parts = (on_grid(images, teacher.input_space) for images in chunks)
        return AuditSet(probe, teacher, torch.cat([teacher.label(part.to(device)).cpu() for part in parts]))

    def __len__(self) -> int:
        return len(self.probe)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the images in order, (N, C, H, W) with N at most `size` at a time."""
        for images in self.probe.split(size):
            yield self._as_taken(images)

    def take(self, numbers: Tensor) -> Tensor:
        """Return the images with these numbers (N,): (N, C, H, W)."""
        return self._as_taken(self.probe.take(numbers))

    def _as_taken(self, images: Tensor) -> Tensor:
        return on_grid(images, self.teacher.input_space) if self.teacher.input_space.whole else images
