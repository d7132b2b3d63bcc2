"""A bank of images in a file behaves like one in memory."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dfkd_core.images.image_rows import ImageRows, Selection
from dfkd_core.loop.safetensors_stream import write_safetensors

SHAPE = (3, 5, 7)


def some_images(count: int, dtype: torch.dtype) -> torch.Tensor:
    levels = torch.randint(256, (count, *SHAPE), generator=torch.Generator().manual_seed(count))
    return levels.to(dtype)


@pytest.mark.parametrize("in_memory_bytes", [0, 2**20])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_what_is_put_into_a_place_comes_out_of_it(dtype: torch.dtype, in_memory_bytes: int) -> None:
    rows = ImageRows(9, SHAPE, dtype, in_memory_bytes=in_memory_bytes)
    images, places = some_images(4, dtype), torch.tensor([7, 0, 3, 8])
    rows[places] = images
    assert torch.equal(rows[torch.tensor([8, 7, 7])], images[[3, 0, 0]])
    assert not rows[torch.tensor([1, 2])].any()
    assert rows[torch.zeros(0, dtype=torch.int64)].shape == (0, *SHAPE)
    assert rows.num_bytes == 9 * 3 * 5 * 7 * dtype.itemsize


@pytest.mark.parametrize("in_memory_bytes", [0, 2**20])
def test_a_restored_bank_holds_the_same_images(in_memory_bytes: int) -> None:
    rows, other = (ImageRows(9, SHAPE, torch.uint8, in_memory_bytes=in_memory_bytes) for _ in range(2))
    places = torch.tensor([1, 4, 6])
    rows[places] = some_images(3, torch.uint8)
    other.restore(places, copy.deepcopy(rows.state(places)))
    assert torch.equal(rows[torch.arange(9)], other[torch.arange(9)])


def test_a_copied_selection_keeps_what_it_was() -> None:
    rows, places = ImageRows(3, SHAPE, torch.uint8, in_memory_bytes=0), torch.tensor([2])
    rows[places] = some_images(1, torch.uint8)
    state = rows.state(places)
    assert isinstance(state, Selection)
    kept = copy.deepcopy(state)
    rows[places] = torch.zeros((1, *SHAPE), dtype=torch.uint8)
    assert torch.equal(kept, some_images(1, torch.uint8))


def test_images_of_a_file_are_written_like_a_tensor(tmp_path: Path) -> None:
    rows, places = ImageRows(50, SHAPE, torch.uint8, in_memory_bytes=0), torch.arange(0, 50, 2)
    rows[places] = some_images(25, torch.uint8)
    state = rows.state(places)
    values = {
        "b": torch.arange(3.0),
        "a": state,
        "c": torch.tensor([True]),
        "d": torch.zeros((0, 2)),
        "e": torch.ones(()),
    }
    with (tmp_path / "file").open("wb") as file:
        write_safetensors(file, values, metadata={"one": "key"})
    found = load_file(tmp_path / "file")
    assert found.keys() == values.keys()
    assert torch.equal(found["a"], some_images(25, torch.uint8))
    assert all(torch.equal(found[name], values[name]) for name in "bcd")
