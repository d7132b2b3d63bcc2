"""What is said of a narrowed teacher before any job: sizes, refusals with reasons, and a notice where little goes."""

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from dfkd_core.errors import StudentError, StudentNotSmaller
from dfkd_core.inspection.inspection import Inspection, inspect_file
from dfkd_core.inspection.narrowed import describe_narrowed, narrowed_sizes
from dfkd_core.inspection.resolve import resolve
from dfkd_core.spec.config import DistillSpec, StudentSpec
from dfkd_core.spec.teacher import TeacherSpec
from tests.dfkd_core.onnx_models import SHAPE, classifier, model, node, save

RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def headed(*, hidden: int = 8, tail: str = "Flatten") -> ModelProto:
    """Convolution, ReLU, a 1 x 1 convolution to 10 channels, pooling: no linear layer."""
    nodes = [
        node("Conv", ["images", "conv1.weight"], ["hidden"]),
        node("Relu", ["hidden"], ["bent"]),
        node("Conv", ["bent", "conv2.weight"], ["scores"]),
        node("GlobalAveragePool", ["scores"], ["pooled"]),
        node(tail, ["pooled"], ["logits"]),
    ]
    return model(nodes, {"conv1.weight": weights(hidden, SHAPE[0], 3, 3), "conv2.weight": weights(10, hidden, 1, 1)})


def linear() -> ModelProto:
    """One linear layer from the pixels: there is no hidden channel."""
    size = int(np.prod(SHAPE))
    nodes = [node("Flatten", ["images"], ["pixels"]), node("Gemm", ["pixels", "fc.weight"], ["logits"], transB=1)]
    return model(nodes, {"fc.weight": weights(10, size)})


def mostly_fixed() -> ModelProto:
    """A wide layer whose outputs a reshape mixes with pixels, and a small one behind it that can be narrowed."""
    nodes = [
        node("Conv", ["images", "wide.weight"], ["wide"], pads=[1, 1, 1, 1]),
        node("Reshape", ["wide", "mixed_shape"], ["mixed"]),
        node("Conv", ["mixed", "small.weight"], ["small"]),
        node("GlobalAveragePool", ["small"], ["pooled"]),
        node("Flatten", ["pooled"], ["features"]),
        node("Gemm", ["features", "fc.weight"], ["logits"], transB=1),
    ]
    constants = {
        "wide.weight": weights(64, SHAPE[0], 3, 3),
        "mixed_shape": np.array([0, 12, -1, 16], np.int64),
        "small.weight": weights(4, 12, 1, 1),
        "fc.weight": weights(10, 4),
    }
    return model(nodes, constants)


def inspected(made: ModelProto, tmp_path: Path) -> Inspection:
    return inspect_file(save(made, tmp_path / "teacher.onnx"), TeacherSpec())


def half(width: float = 0.5) -> StudentSpec:
    return StudentSpec(architecture="teacher", width=width)


def test_the_copy_is_described_before_any_job(tmp_path: Path) -> None:
    inspection = inspected(headed(), tmp_path)
    found = describe_narrowed(inspection, half())
    assert found is not None
    height, width = SHAPE[1] - 2, SHAPE[2] - 2
    assert found.figures.parameters == 4 * SHAPE[0] * 9 + 10 * 4
    assert found.figures.macs == height * width * 4 * SHAPE[0] * 9 + 10 * 4
    assert found.figures.activation_bytes == 4 * (height * width * (4 + 4) + 4 + 4 + 10)
    assert dict(found.figures.layers) == {"conv1": 4, "conv2": 10}
    assert found.notice is None


def test_a_convolution_head_offers_features(tmp_path: Path) -> None:
    inspection = inspected(headed(), tmp_path)
    assert inspection.offers == ["features"]
    assert "convolution-head-to-linear" in inspection.normalisations


def test_a_softmax_with_a_temperature_is_no_obstacle(tmp_path: Path) -> None:
    last = [node("Div", ["scores", "temperature"], ["logits"])]
    made = classifier(last)
    made.graph.initializer.append(numpy_helper.from_array(np.float32(2), "temperature"))
    found = describe_narrowed(inspected(made, tmp_path), half())
    assert found is not None
    assert found.removed > 0.3


def test_a_number_of_parameters_sets_the_width(tmp_path: Path) -> None:
    inspection = inspected(headed(), tmp_path)
    found = describe_narrowed(inspection, StudentSpec(architecture="teacher", params="40%"))
    assert found is not None
    assert found.figures.parameters <= 0.4 * inspection.parameters
    with pytest.raises(StudentError, match="is the least") as refusal:
        describe_narrowed(inspection, StudentSpec(architecture="teacher", params=3))
    assert refusal.value.pointer == "/student/params"


def test_a_net_without_hidden_channels_is_refused_with_the_reason(tmp_path: Path) -> None:
    inspection = inspected(linear(), tmp_path)
    with pytest.raises(StudentError, match="it is an output of the network") as refusal:
        describe_narrowed(inspection, half())
    assert refusal.value.pointer == "/student/architecture"
    assert "dfkd students" in str(refusal.value.hint)
    sizes = narrowed_sizes(inspection)
    assert sizes is not None
    assert (sizes.possible, sizes.sizes) == (False, [])
    assert "it is an output of the network" in str(sizes.because)


def test_the_spec_is_refused_before_the_job(tmp_path: Path) -> None:
    spec = DistillSpec.model_validate({"student": {"architecture": "teacher"}, "distillation": {"method": "auto"}})
    with pytest.raises(StudentError, match="cannot be narrowed"):
        resolve(spec, inspected(linear(), tmp_path))


def test_little_is_said_with_the_figure(tmp_path: Path) -> None:
    inspection = inspected(mostly_fixed(), tmp_path)
    found = describe_narrowed(inspection, half())
    assert found is not None
    assert found.notice is not None
    assert found.notice.code == "student-partly-narrowed"
    assert found.notice.detail.startswith("Width 0.5 removes 1.")
    assert "a reshape mixes it with other axes" in found.notice.detail
    spec = DistillSpec.model_validate({"student": {"architecture": "teacher"}, "distillation": {"method": "auto"}})
    assert found.notice in resolve(spec, inspection)[2]


def test_a_width_that_removes_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        StudentNotSmaller,
        match=r"a copy of width 0\.99 has 368 parameters, the teacher 368: its groups of channels are too small",
    ) as refusal:
        describe_narrowed(inspected(headed(), tmp_path), half(0.99))
    assert refusal.value.pointer == "/student/width"


def test_an_inspection_survives_storage(tmp_path: Path) -> None:
    inspection = inspected(headed(), tmp_path)
    again = Inspection.model_validate_json(inspection.model_dump_json())
    assert describe_narrowed(again, half()) == describe_narrowed(inspection, half())
    assert describe_narrowed(again.model_copy(update={"narrowing": None}), half()) is None
