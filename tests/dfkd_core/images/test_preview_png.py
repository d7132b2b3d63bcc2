"""samples.png: the images that were asked for, by class, the same bytes each time, and nothing else in the file."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dfkd_core.images.preview_png import GAP, NOTE, samples_png

LOW, HIGH = torch.tensor([[[[-1.0]], [[-2.0]], [[0.0]]]]), torch.tensor([[[[1.0]], [[2.0]], [[4.0]]]])


def drawn(images: Tensor, logits: Tensor, *, channels: int = 3) -> Image.Image:
    low, high = (LOW, HIGH) if channels == 3 else (-torch.ones(1, channels, 1, 1), torch.ones(1, channels, 1, 1))
    image = Image.open(io.BytesIO(samples_png(images, logits, low=low, high=high)))
    image.load()
    return image


def test_each_class_has_a_row_with_its_surest_images_first() -> None:
    shades = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(4, 1, 1, 1)
    images = LOW + shades * (HIGH - LOW) * torch.ones(4, 3, 5, 5)
    logits = torch.tensor([[0.0, 1.0, 0.0], [3.0, 0.0, 0.0], [0.0, 5.0, 0.0], [2.0, 0.0, 0.0]])
    pixels = np.asarray(drawn(images, logits))
    assert pixels.shape == (2 * (5 + GAP) + GAP, 2 * (5 + GAP) + GAP, 3)
    rows = [[pixels[GAP + 7 * row, GAP + 7 * column].tolist() for column in (0, 1)] for row in (0, 1)]
    assert rows == [[[64] * 3, [255] * 3], [[128] * 3, [0] * 3]]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "L")])
def test_any_number_of_channels_becomes_a_picture(channels: int, mode: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(30, channels, 6, 9, generator=generator)
    assert drawn(images, torch.randn(30, 4, generator=generator), channels=channels).mode == mode


def test_the_bytes_are_the_same_each_time_and_say_only_what_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    images, logits = torch.randn(300, 3, 32, 32, generator=generator), torch.randn(300, 40, generator=generator)
    first, second = (samples_png(images, logits, low=LOW, high=HIGH) for _ in range(2))
    assert first == second
    kinds, at = [], 8
    while at < len(first):
        (length,) = struct.unpack(">I", first[at : at + 4])
        kinds.append(first[at + 4 : at + 8])
        at += 12 + length
    assert kinds == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]
    picture = Image.open(io.BytesIO(first))
    assert picture.info == {"Description": NOTE}
    assert picture.size == (10 * (32 + GAP) + GAP, 16 * (32 + GAP) + GAP)


def test_large_images_are_fewer() -> None:
    images = torch.zeros(40, 3, 600, 600)
    assert max(drawn(images, torch.eye(20).repeat(2, 1)).size) <= 1280
