"""DeepInversion with figures: whose strokes are optimised, and which of several candidates is taken."""

import pytest
import torch
import torch.nn.functional as F

from dfkd_core.images.drawn.figures import AT_ONCE, Figures
from dfkd_core.methods.parts.figure_start import FigureParameters, FigureStart
from dfkd_core.methods.parts.image_starts import PixelStart
from dfkd_core.methods.parts.inversion import Inversion
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.deepinversion import DeepInversionOptions
from dfkd_core.options.passes import Direction
from tests.dfkd_core.methods.test_image_methods import CPU, draws
from tests.dfkd_core.tiny import CLASSES, tiny_teacher


def a_start(teacher: Teacher, **options: object) -> FigureStart:
    parsed = DeepInversionOptions.model_validate({"batch_size": 8, **options})
    pixels = PixelStart(parsed, teacher.input_space, draws=draws(), device=CPU)
    return FigureStart(parsed, teacher, pixels=pixels, draws=draws(), device=CPU)


def wanted(count: int = 8) -> torch.Tensor:
    return F.one_hot(torch.arange(count) % CLASSES, CLASSES).float()


def kinds(start: FigureStart, count: int) -> list[bool]:
    return [isinstance(start.begin(wanted()), FigureParameters) for _ in range(count)]


@pytest.mark.parametrize(("share", "expected"), [(0.25, 3), (0.5, 6), (0.67, 8), (1.0, 12)])
def test_figures_take_their_turn(share: float, expected: int) -> None:
    start = a_start(tiny_teacher(), figure_share=share)
    assert sum(kinds(start, 12)) == expected
    again = a_start(tiny_teacher(), figure_share=share)
    again.restore(start.state())
    assert kinds(again, 5) == kinds(start, 5)
    start.restart()
    assert sum(kinds(start, 12)) == expected


def test_the_share_is_one_of_images_where_chunks_differ() -> None:
    """A batch of 11 images in chunks of 8 and 3."""
    start, figures = a_start(tiny_teacher(), figure_share=0.5), 0
    for count in (8, 3) * 10:
        figures += count * isinstance(start.begin(wanted(count)), FigureParameters)
    assert figures == pytest.approx(55, abs=8)


def test_of_many_targets_each_part_chooses_among_its_own_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tiny_teacher()
    seen: list[int] = []
    label = teacher.label
    monkeypatch.setattr(teacher, "label", lambda images: (seen.append(len(images)), label(images))[1])
    begun = a_start(teacher, figure_share=1.0, figure_candidates=2).begin(wanted(AT_ONCE + 3))
    assert seen == [AT_ONCE, AT_ONCE, 3, 3]
    assert begun.images().shape[0] == AT_ONCE + 3


def test_of_more_candidates_nearer_ones_are_taken() -> None:
    teacher, found = tiny_teacher(), []
    for candidates in (1, 16):
        begun = a_start(teacher, figure_share=1.0, figure_candidates=candidates).begin(wanted())
        with torch.no_grad():
            found.append(float(F.cross_entropy(teacher(begun.images()), wanted())))
    assert found[1] < found[0]


def test_steps_bring_figures_nearer_to_their_classes_and_leave_them_figures() -> None:
    """Their pixels have the colours of ground and ink, and those between."""
    teacher, targets = tiny_teacher(), wanted()
    options = DeepInversionOptions.model_validate({"batch_size": 8, "steps": 15, "figure_share": 1.0})
    parameters = a_start(teacher, figure_share=1.0).begin(targets)
    assert isinstance(parameters, FigureParameters)
    inversion, losses = Inversion(options, parameters, targets, steps=options.steps, more=[]), []
    while not inversion.finished:
        images = inversion.images()
        loss = F.cross_entropy(teacher(images), targets)
        losses.append(float(loss.detach()))
        inversion.step(images, loss)
    assert losses[-1] < 0.9 * losses[0]
    images, figures = inversion.result(), parameters.figures
    colours = torch.stack([figures.ground, figures.ink]).detach()
    low, high = (torch.lerp(*teacher.input_space.bounds(), each[:, :, None, None]) for each in colours.aminmax(dim=0))
    assert (images >= low - 1e-5).all()
    assert (images <= high + 1e-5).all()


def test_an_inversion_of_figures_that_was_stopped_goes_on_bit_for_bit() -> None:
    """A chunk that was resumed keeps its figures, though another one would be begun now."""
    teacher = tiny_teacher()
    start = a_start(teacher, figure_share=0.5)
    pixels, drawn = start.begin(wanted()), start.begin(wanted())
    assert isinstance(drawn, FigureParameters)
    for parameters in (pixels, drawn):
        other = a_start(teacher, figure_share=0.5)
        resumed = other.resume(wanted(), parameters.state())
        assert isinstance(resumed, FigureParameters) == isinstance(parameters, FigureParameters)
        assert torch.equal(resumed.images(), parameters.images())


def test_candidates_are_planned() -> None:
    shape = tiny_teacher().input_space.shape
    plain, drawn = (DeepInversionOptions(figure_share=share).update_passes(shape, feedback=False) for share in (0, 0.5))
    (more,) = [one for one in drawn if one not in plain]
    assert (more.direction, more.images) == (Direction.FORWARD, 256)


def test_figures_lie_in_the_valid_range() -> None:
    teacher = tiny_teacher(shape=(3, 8, 12))
    figures = Figures.drawn(teacher.input_space.shape, 30, generator=draws())
    low, high = teacher.input_space.bounds()
    images = FigureParameters(figures, learning_rate=0.05, bounds=(low, high)).images()
    assert images.shape == (30, 3, 8, 12)
    assert (images >= low).all()
    assert (images <= high).all()
