"""An inversion can begin at half the height and width: what the networks then see, and how much a step counts."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dfkd_core.methods.parts.image_parameters import resized
from dfkd_core.networks.precision import Engine
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.deepinversion import DeepInversionOptions
from dfkd_core.options.passes import Direction, Network
from dfkd_core.pulse import Pulse
from dfkd_core.spec.config import Compute
from tests.dfkd_core.methods.test_image_methods import draws, synthesizer, tiny_student
from tests.dfkd_core.tiny import SHAPE, tiny_teacher

SMALLER, FULL = (8, 1, 4, 4), (8, *SHAPE)


def watched(teacher: Teacher) -> tuple[Teacher, list[tuple[int, ...]]]:
    """Return the teacher, and the shapes that it will have seen."""
    seen: list[tuple[int, ...]] = []
    teacher.network.register_forward_pre_hook(lambda _module, inputs: seen.append(tuple(inputs[0].shape)))
    return teacher, seen


def test_the_teacher_sees_smaller_images_first_and_then_all_of_their_pixels() -> None:
    teacher, seen = watched(tiny_teacher(batchnorm=True))
    source = synthesizer("deepinversion", teacher, coarse_steps=5)
    source.synthesize(None, rate=1.0)
    assert seen == [SMALLER] * 5 + [FULL] * 3
    assert source.sample(8, generator=draws()).shape == FULL


def test_the_student_sees_no_coarse_images() -> None:
    student = tiny_student()
    seen: list[tuple[int, ...]] = []
    student.register_forward_pre_hook(lambda _module, inputs: seen.append(tuple(inputs[0].shape)))
    synthesizer("deepinversion", tiny_teacher(batchnorm=True), coarse_steps=5).synthesize(student, rate=1.0)
    assert seen == [FULL] * 3


@pytest.mark.parametrize("coarse_steps", [0, 1, 6])
def test_a_batch_counts_as_many_images_as_it_has(coarse_steps: int) -> None:
    pulse = Pulse()
    teacher = tiny_teacher().with_precision(Engine(Compute(), pulse))
    did: list[float] = []
    pulse.did = did.append  # type: ignore[method-assign, assignment]
    synthesizer("deepinversion", teacher, coarse_steps=coarse_steps).synthesize(None, rate=1.0)
    assert len(did) == coarse_steps + 3
    assert sum(did) == pytest.approx(8)
    if coarse_steps:
        assert did[0] == pytest.approx(did[-1] / 4)


def test_images_are_enlarged_from_where_the_coarse_steps_ended() -> None:
    """With steps of no length the images are the start, made smaller and larger again."""
    still: dict[str, Any] = {"coarse_steps": 2, "learning_rate": 1e-12}
    source = synthesizer("deepinversion", start="shapes", **still)
    source.synthesize(None, rate=1.0)
    whole = synthesizer("deepinversion", start="shapes", learning_rate=1e-12)
    whole.synthesize(None, rate=1.0)
    found, begun = (each.sample(8, generator=draws()) for each in (source, whole))
    expected: Tensor = resized(resized(begun, SMALLER[2:]), FULL[2:])
    assert torch.allclose(found, expected, atol=1e-5)


def test_of_an_odd_size_all_pixels_come_back() -> None:
    source = synthesizer("deepinversion", tiny_teacher(shape=(1, 9, 7)), coarse_steps=2)
    source.synthesize(None, rate=1.0)
    assert source.sample(8, generator=draws()).shape == (8, 1, 9, 7)


def test_figures_have_no_coarse_steps() -> None:
    teacher, seen = watched(tiny_teacher(batchnorm=True))
    synthesizer("deepinversion", teacher, coarse_steps=5, figure_share=1.0).synthesize(None, rate=1.0)
    assert seen[-3:] == [FULL] * 3
    assert SMALLER not in seen


@pytest.mark.parametrize(("figure_share", "images"), [(0.0, 16), (0.5, 8)])
def test_a_coarse_step_costs_a_quarter(figure_share: float, images: int) -> None:
    options = DeepInversionOptions(batch_size=64, steps=5, coarse_steps=60, figure_share=figure_share)
    full, coarse = options.update_passes((3, 64, 64), feedback=False)[:2]
    assert (full.images, full.batches) == (64 * 5, 5)
    assert (coarse.network, coarse.direction) == (Network.TEACHER, Direction.TO_INPUT)
    assert (coarse.images, coarse.batches) == (images * 60, 60)
