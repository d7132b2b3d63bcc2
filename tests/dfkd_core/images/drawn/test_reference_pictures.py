"""The pictures that come with the package are those that its command draws."""

import numpy as np

from dfkd_core.images.drawn.reference_pictures import FILE, reference_pictures
from dfkd_core.inspection.input_space.pictures import KINDS, pictures


def test_the_file_holds_what_the_command_draws() -> None:
    drawn = reference_pictures()
    with np.load(FILE) as stored:
        assert {*stored} == {*drawn} == {*KINDS, "figures"}
        for kind, images in drawn.items():
            apart = np.abs(stored[kind].astype(int) - images.numpy().astype(int))
            assert apart.mean() < 0.5, kind  # another processor may round otherwise


def test_pictures_come_in_any_size_and_number_of_channels() -> None:
    for shape in ((1, 28, 28), (3, 96, 40), (4, 8, 8)):
        drawn = pictures(shape, 5)
        assert {*drawn} == {*KINDS}
        for images in drawn.values():
            assert images.shape == (5, *shape)
            assert images.dtype == np.float32
            assert images.min() >= 0
            assert images.max() <= 1
            assert images.std() > 0.05
