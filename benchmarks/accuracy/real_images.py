"""Jobs that see real images in place of made ones: the upper line of what a recipe can reach.

python -m benchmarks.accuracy.real_images TEACHER.onnx SPEC.json WORKSPACE DATASET --threads 2

The recipe and its numbers of updates stay; only where the images come from changes.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.datasets import NORMALISATIONS, load_images
from dfkd_core.loop import image_sources
from dfkd_core.methods.parts.synthesizer import Synthesizer
from dfkd_core.networks.teacher import Teacher
from dfkd_core.pipeline import compress
from dfkd_core.rng import Streams
from dfkd_core.sandbox.process_tuning import ensure_tuned
from dfkd_core.spec.config import DistillConfig, DistillSpec


class RealImages(Synthesizer):
    """Gives the training images of a data set, each once, in an order drawn from the run's seed."""

    optimises_images: ClassVar[bool] = True

    def __init__(self, images: Tensor, at_once: int, *, order: Tensor) -> None:
        self._images, self._at_once, self._order = images, at_once, order
        self._next = 0
        self._unseen = images[:0]

    def synthesize(self, student: nn.Module | None, *, rate: float) -> dict[str, Tensor]:
        """Take the next batch."""
        chosen = self._order[torch.arange(self._next, self._next + self._at_once) % len(self._order)]
        self._next += self._at_once
        self._unseen = torch.cat([self._unseen, self._images[chosen]])
        return {}

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Return at most `count` images that were not returned yet."""
        given, self._unseen = self._unseen[:count], self._unseen[count:]
        return given

    def restart(self) -> None:
        """Drop the images that were not given yet."""
        self._unseen = self._unseen[:0]

    def back_off(self) -> None:
        """Do nothing: real images cannot collapse."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"next": self._next, "unseen": self._unseen}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier one."""
        self._next, self._unseen = state["next"], state["unseen"]


def real_images_of(dataset: str) -> Any:
    """Return what replaces `build_synthesizer`: the data set, in the values of the teacher's training."""
    images = load_images(dataset, "train").images

    def build(config: DistillConfig, teacher: Teacher, *, streams: Streams, device: torch.device) -> Synthesizer:
        space, normalisation = teacher.input_space, NORMALISATIONS[dataset]
        assert space.shape == normalisation.shape
        assert not space.is_scaled
        size = int(config.method_options.model_dump()["batch_size"])
        return RealImages(images.to(device), size, order=torch.randperm(len(images), generator=streams["images"]))

    return build


def main() -> None:
    """Run one job, with all its images from the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("spec", type=Path, help="resolved; its shares of procedural images and figures are set to 0")
    parser.add_argument("workspace", type=Path)
    parser.add_argument("dataset", choices=sorted(NORMALISATIONS))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    ensure_tuned(options.threads)
    spec = DistillSpec.model_validate_json(options.spec.read_text())
    with patch.object(image_sources, "build_synthesizer", real_images_of(options.dataset)):
        compress(
            options.teacher,
            spec,
            workspace=options.workspace,
            threads=options.threads,
            device="cpu",
            on_step=lambda _update: False,
        )


if __name__ == "__main__":
    main()
