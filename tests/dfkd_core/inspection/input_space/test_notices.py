"""What was assumed of a teacher's pixels, and what was told but does not fit, stands in the spec and in warnings."""

from typing import Any

import pytest

from dfkd_core.input_estimate import InputEstimate
from dfkd_core.inspection.inspection import BatchNormFacts, Inspection
from dfkd_core.inspection.resolve import resolve
from dfkd_core.notice import Notice
from dfkd_core.spec.config import DistillSpec
from dfkd_core.spec.teacher import InputSpec

MNIST = {"mean": [0.1307], "std": [0.3081], "range": [0.0, 1.0]}


def estimate(**changes: Any) -> InputEstimate:
    values = {
        "convention": "mnist",
        **MNIST,
        "certainty": "sure",
        "basis": "batchnorm",
        "distance": 0.5,
        "next_convention": "fashion-mnist",
        "next_distance": 0.8,
        "pictures": "strokes",
        "distances": {"mnist": 0.5, "fashion-mnist": 0.8, "zero-one": 1.7, "bytes": 6.0},
    }
    return InputEstimate(**{**values, **changes})


def resolved(told: dict[str, Any] | None, found: InputEstimate | None) -> tuple[InputSpec, list[Notice]]:
    """Return what a job's spec says of the images, and the warnings."""
    inspection = Inspection(
        format="onnx",
        parameters=61706,
        input_shape=[1, 32, 32],
        num_classes=10,
        batchnorm=BatchNormFacts(status="present", present=2),
        input_space=found,
    )
    document = {"student": {"architecture": "lenet5_half"}, "teacher": {"input": told}}
    spec, _, warnings = resolve(DistillSpec.model_validate(document), inspection)
    again, _, repeated = resolve(DistillSpec.model_validate(spec.model_dump(mode="json")), inspection)
    assert again == spec
    assert repeated == warnings
    assert spec.teacher.input is not None
    return spec.teacher.input, warnings


@pytest.mark.parametrize("certainty", ["sure", "likely"])
def test_what_the_file_shows_is_assumed_where_nobody_told_it(certainty: str) -> None:
    images, warnings = resolved(None, estimate(certainty=certainty))
    assert images == InputSpec(shape=[1, 32, 32], layout="NCHW", **MNIST, assumed=certainty)
    (warning,) = warnings
    assert warning.code == "input-space-estimated"
    assert "0.1307" in warning.detail
    assert "0.5; next is fashion-mnist with 0.8" in warning.detail
    assert certainty in warning.detail


@pytest.mark.parametrize("found", [estimate(certainty="unknown"), None])
def test_it_is_said_that_the_file_does_not_tell(found: InputEstimate | None) -> None:
    images, warnings = resolved(None, found)
    assert images.assumed == "unknown"
    assert images.is_range_known
    assert [warning.code for warning in warnings] == ["input-range-unknown"]


def test_answers_to_drawn_pictures_say_what_is_assumed_and_doubt_nothing() -> None:
    found = estimate(basis="answers", certainty="likely", distance=None, next_distance=None, distances={})
    images, (warning,) = resolved(None, found)
    assert (images.mean, images.assumed) == (MNIST["mean"], "likely")
    assert warning.code == "input-space-estimated"
    assert "what it answers to drawn pictures fits mnist best (next is fashion-mnist)" in warning.detail
    assert resolved({"range": [0.0, 255.0]}, found)[1] == []


def test_what_is_told_wins() -> None:
    images, warnings = resolved({"mean": [0.14], "std": [0.3]}, estimate())
    assert (images.mean, images.std, images.assumed) == ([0.14], [0.3], None)
    assert warnings == []  # it is nearly the same


@pytest.mark.parametrize("told", [{"range": [0.0, 255.0]}, {"range": [0.0, 1.0]}])
def test_what_is_told_is_doubted_where_it_fits_clearly_worse(told: dict[str, Any]) -> None:
    images, (warning,) = resolved(told, estimate())
    assert images.range == told["range"]
    assert images.assumed is None
    assert warning.code == "input-space-doubtful"
    assert "0.5 from those of mnist" in warning.detail
    assert "0.1307" in (warning.hint or "")


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (
            {"mean": [0.286], "std": [0.353]},
            estimate(next_distance=0.6, distances={"mnist": 0.5, "fashion-mnist": 0.6}),
        ),
        ({"range": [0.0, 255.0]}, estimate(certainty="unknown")),
        ({"mean": [0.9], "std": [0.05]}, estimate()),  # nobody has looked at its distance
        ({"range": [0.0, 1.0]}, None),
    ],
)
def test_what_is_told_is_not_doubted_for_little(told: dict[str, Any], found: InputEstimate | None) -> None:
    assert resolved(told, found)[1] == []


def test_the_distance_of_the_very_values_that_were_told_counts() -> None:
    told = {"mean": [0.9], "std": [0.05]}
    (warning,) = resolved(told, estimate(told={**told, "range": [0.0, 1.0], "distance": 4.2}))[1]
    assert "4.2" in warning.detail
    assert resolved({"mean": [0.91], "std": [0.05]}, estimate(told={**MNIST, "distance": 4.2}))[1] == []


def test_values_that_were_assumed_once_and_changed_since_are_told() -> None:
    images, warnings = resolved({"mean": [0.14], "std": [0.3], "assumed": "sure"}, estimate())
    assert images.assumed is None
    assert warnings == []


def test_a_graph_that_normalises_its_images_itself_doubts_another_range() -> None:
    found = estimate(convention="bytes", mean=None, std=None, range=[0.0, 255.0], basis="graph", distance=None)
    images, (assumed,) = resolved(None, found)
    assert images.range == [0.0, 255.0]
    assert "its graph normalises its images itself" in assumed.detail
    (doubt,) = resolved({"range": [0.0, 1.0]}, found)[1]
    assert doubt.code == "input-space-doubtful"


@pytest.mark.parametrize(
    ("told", "said", "hint"),
    [
        ({"mean": [123.7], "std": [58.4]}, "mean [123.7]", "give teacher.input.range [0, 255] too"),
        ({"mean": [300.0], "std": [58.4], "range": [0.0, 255.0]}, "mean [300]", "[0, 1] where no range is given"),
        ({"mean": [0.5], "std": [0.00001]}, "std [1e-05]", "[0, 1] where no range is given"),
    ],
)
def test_values_that_cannot_be_those_of_the_pixels_are_doubted_whatever_the_file_shows(
    told: dict[str, Any], said: str, hint: str
) -> None:
    for found in (None, estimate(certainty="unknown")):
        (notice,) = resolved(told, found)[1]
        assert notice.code == "input-space-doubtful"
        assert said in notice.detail
        assert hint in str(notice.hint)


@pytest.mark.parametrize(
    "told",
    [
        {"mean": [0.5], "std": [0.5]},
        {"mean": [123.7], "std": [1.0], "range": [0.0, 255.0]},
        {"mean": [0.0], "std": [1.0]},
    ],
)
def test_usual_values_are_not_doubted(told: dict[str, Any]) -> None:
    assert resolved(told, None)[1] == []
