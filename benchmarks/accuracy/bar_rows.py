"""The pairs of `benchmarks.accuracy.bars`: teacher, student, how the teacher was exported, and the bars in percent."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.pair import fold
from benchmarks.teachers import CACHE, RECIPES, SEED, load_demonstration_teacher
from dfkd_core.exporting.onnx_writers import WRITERS, write_onnx

HALF: Final = {"architecture": "teacher", "width": 0.5}
OPSET = 18


@dataclass(frozen=True, slots=True)
class Row:
    """One pair. Nothing is said about the values of its pixels."""

    teacher: str  # of benchmarks/teachers.py
    student: dict[str, Any]  # of the spec
    bars: dict[str, float]  # effort → percent of the real test images; none for a pair that no choice was made on
    folded: bool = False  # the teacher's BatchNorms are in its convolutions

    @property
    def chosen_on(self) -> bool:
        """Whether choices were made on this pair, or on one with this teacher and a student of the same kind."""
        return bool(self.bars)

    def teacher_file(self) -> Path:
        """Return the teacher as an ONNX file, from the cache or trained now."""
        path = CACHE / f"{self.teacher}{'-folded' if self.folded else ''}-seed{SEED}.onnx"
        if not path.exists():
            teacher = load_demonstration_teacher(self.teacher)
            network = (fold(teacher) if self.folded else teacher).network
            images = torch.zeros(2, *teacher.input_space.shape)
            write_onnx(WRITERS[0], network.eval(), images, path, opset=OPSET, fixed=False)
        return path

    @property
    def dataset(self) -> str:
        """The data set of the test images."""
        return RECIPES[self.teacher].dataset


def _bars(quick: float, standard: float, thorough: float) -> dict[str, float]:
    return {"quick": quick, "standard": standard, "thorough": thorough}


ROWS = {
    "mnist-lenet": Row("mnist-lenet5", HALF, _bars(98.3, 98.9, 99.0)),
    "mnist-lenet-random": Row(
        "mnist-lenet5", {"architecture": "lenet5_half", "init": "random"}, _bars(97.5, 98.5, 98.8)
    ),
    "mnist-resnet8": Row("mnist-resnet14", {"architecture": "resnet8"}, _bars(97, 98.7, 99.0)),
    "fashion-lenet": Row("fashion-lenet5", HALF, _bars(84, 87, 88.5)),
    "fashion-folded-resnet8": Row("fashion-resnet14", {"architecture": "resnet8"}, _bars(75, 84, 87), folded=True),
    "cifar-half": Row("cifar10-resnet20", HALF, _bars(80, 84.5, 86.5)),
    "cifar-folded-half": Row("cifar10-resnet20", HALF, _bars(65, 78, 82), folded=True),
    "cifar-resnet8": Row("cifar10-resnet20", {"architecture": "resnet8"}, _bars(55, 72, 78)),
    "letters-half": Row("letters-resnet14", HALF, {}),
    "letters-resnet8": Row("letters-resnet14", {"architecture": "resnet8"}, {}),
    "cifar-resnet8-half": Row("cifar10-resnet8", HALF, {}),
}
