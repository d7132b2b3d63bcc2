"""`method: auto` chooses settings by the size of the images and by the kind of student."""

from typing import Any

import pytest

from dfkd_core.input_estimate import Kind
from dfkd_core.inspection.input_space.conventions import without_evidence
from dfkd_core.inspection.inspection import BatchNormFacts, Inspection
from dfkd_core.inspection.resolve import resolve
from dfkd_core.spec.config import DistillSpec, Training

NARROWED = {"architecture": "teacher", "width": 0.5}


def inspection(side: int, *, batchnorm: bool = True) -> Inspection:
    return Inspection(
        format="onnx",
        parameters=11_000_000,
        macs=1_800_000_000,
        activation_bytes=34_000_000,
        input_shape=[3, side, side],
        num_classes=10,
        operators={"Conv": 20},
        batchnorm=BatchNormFacts(status="present" if batchnorm else "folded", present=20 * batchnorm),
        offers=["features", *(["batchnorm"] if batchnorm else [])],
    )


def of_pictures(side: int, kind: Kind | None, *, batchnorm: bool = True) -> Inspection:
    found = without_evidence(1).model_copy(update={"pictures": kind})
    return inspection(side, batchnorm=batchnorm).model_copy(
        update={"input_shape": [1, side, side], "input_space": found}
    )


def training(side: int, student: dict[str, Any], *, batchnorm: bool = True, **distillation: Any) -> Training:
    spec = DistillSpec.model_validate({"student": student, "distillation": distillation})
    return resolve(spec, inspection(side, batchnorm=batchnorm))[0].distillation.training


@pytest.mark.parametrize("batchnorm", [True, False])
def test_a_narrowed_copy_of_a_teacher_of_large_images_learns_from_blocks(batchnorm: bool) -> None:
    assert training(224, NARROWED, batchnorm=batchnorm).block_weight > 0
    assert training(64, NARROWED, batchnorm=batchnorm).block_weight > 0


@pytest.mark.parametrize("side", [28, 32, 48])
def test_small_images_need_no_blocks(side: int) -> None:
    assert training(side, NARROWED).block_weight == 0


@pytest.mark.parametrize("student", [{**NARROWED, "init": "random"}, {"architecture": "resnet20"}])
def test_other_students_have_no_blocks_of_their_teacher(student: dict[str, Any]) -> None:
    assert training(224, student).block_weight == 0


def test_what_the_caller_says_about_blocks_stays() -> None:
    assert training(224, NARROWED, training={"block_weight": 0.0}).block_weight == 0
    assert training(224, NARROWED, method="deepinversion").block_weight == 0


@pytest.mark.parametrize("student", [NARROWED, {"architecture": "resnet20"}])
def test_large_images_are_not_inverted_in_a_mirror_too(student: dict[str, Any]) -> None:
    """A teacher of text direction gives a mirrored line another class, and no image can have both."""
    assert options(224, student)["flip"] is False
    assert options(32, student)["flip"] is True
    assert training(224, student).augmentation.flip


@pytest.mark.parametrize("student", [NARROWED, {"architecture": "resnet20"}])
def test_large_photographs_are_inverted_in_small_steps_and_by_their_classes(student: dict[str, Any]) -> None:
    spec = DistillSpec.model_validate({"student": student})

    def chosen(side: int, kind: Kind | None, *, batchnorm: bool = True) -> tuple[float, float, bool]:
        found = resolve(spec, of_pictures(side, kind, batchnorm=batchnorm))[0].distillation.method_options.model_dump()
        return found["learning_rate"], found["bn_weight"], found["flip"]

    assert chosen(224, "scenes") == (0.1, 0.05, False)
    usual = chosen(224, None)
    assert usual == chosen(224, "pages") == chosen(224, "shapes") == (0.4, 1.0, False)
    assert chosen(32, "scenes")[:2] == usual[:2]
    assert chosen(224, "scenes", batchnorm=False) == chosen(224, None, batchnorm=False)


@pytest.mark.parametrize("student", [NARROWED, {"architecture": "resnet20"}])
@pytest.mark.parametrize(
    ("side", "kind", "offered", "steps"),
    [
        (224, "scenes", "half-size", (40, 10)),
        (224, "scenes", "features", (0, 20)),
        (224, "pages", "half-size", (0, 20)),
        (32, "scenes", "half-size", (0, 20)),
    ],
)
def test_large_photographs_begin_at_half_the_size_where_the_teacher_takes_it(
    side: int, kind: Kind, offered: str, steps: tuple[int, int], student: dict[str, Any]
) -> None:
    found = of_pictures(side, kind)
    found = found.model_copy(update={"offers": [*found.offers, offered]})
    resolved = resolve(DistillSpec.model_validate({"student": student}), found)[0].distillation.method_options
    values = resolved.model_dump()
    assert (values["coarse_steps"], values["steps"]) == steps


@pytest.mark.parametrize(
    ("side", "kind", "student", "share"),
    [
        (224, "scenes", NARROWED, 0.5),
        (224, "scenes", {**NARROWED, "init": "random"}, 0.0),
        (224, "scenes", {"architecture": "resnet20"}, 0.0),
        (224, "pages", NARROWED, 0.0),
        (32, "scenes", NARROWED, 0.0),
    ],
)
def test_copies_of_teachers_of_large_photographs_learn_from_drawn_scenes_too(
    side: int, kind: Kind, student: dict[str, Any], share: float
) -> None:
    spec, *_ = resolve(DistillSpec.model_validate({"student": student}), of_pictures(side, kind))
    procedural = spec.distillation.procedural
    assert procedural.share == share
    if share:
        assert procedural.kinds == ["scenes"]
        assert procedural.refinement.share == 0


@pytest.mark.parametrize("student", [NARROWED, {"architecture": "resnet8"}])
def test_teachers_of_signs_are_shown_figures_and_none_in_a_mirror(student: dict[str, Any]) -> None:
    spec = DistillSpec.model_validate({"student": student})
    for found in (of_pictures(28, None), of_pictures(28, "scenes"), of_pictures(28, "figures", batchnorm=False)):
        assert resolve(spec, found)[0].distillation.method_options.model_dump()["figure_share"] == 0
    assert resolve(spec, of_pictures(28, "strokes")) == resolve(spec, of_pictures(28, "figures"))
    chosen = resolve(spec, of_pictures(28, "figures"))[0].distillation
    assert chosen.method_options.model_dump()["figure_share"] > 0.5
    assert chosen.method_options.model_dump()["flip"] is False
    assert not chosen.training.augmentation.flip
    asked = DistillSpec.model_validate(
        {"student": student, "distillation": {"training": {"augmentation": {"flip": True}}}}
    )
    assert resolve(asked, of_pictures(28, "figures"))[0].distillation.training.augmentation.flip


@pytest.mark.parametrize("student", [{**NARROWED, "init": "random"}, {"architecture": "resnet8"}])
def test_students_that_know_nothing_see_no_blended_images(student: dict[str, Any]) -> None:
    assert training(32, student).augmentation.mixup == 0
    assert training(32, NARROWED).augmentation.mixup > 0
    assert training(32, student, training={"augmentation": {"mixup": 0.2}}).augmentation.mixup == 0.2


def options(side: int, student: dict[str, Any]) -> dict[str, Any]:
    found = resolve(DistillSpec.model_validate({"student": student}), inspection(side))[0]
    return found.distillation.method_options.model_dump()


def codes(side: int, width: float, **budget: Any) -> list[str]:
    document = {"student": {"architecture": "teacher", "width": width}, "distillation": {"budget": budget}}
    return [notice.code for notice in resolve(DistillSpec.model_validate(document), inspection(side))[2]]


def test_a_run_that_is_too_short_for_half_the_width_is_told_so() -> None:
    assert "gentler-width" in codes(224, 0.5, effort="quick")
    assert "gentler-width" in codes(224, 0.5, steps=100)
    assert "gentler-width" not in codes(224, 0.5, effort="standard")
    assert "gentler-width" not in codes(224, 0.75, effort="quick")


def test_small_images_get_no_advice_on_the_width() -> None:
    assert "gentler-width" not in codes(32, 0.5, steps=10)
