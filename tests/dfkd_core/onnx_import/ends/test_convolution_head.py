"""Convolutions that make the logits become linear layers with the same results, so that features can be read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto

from dfkd_core.inspection.inspection import inspect_file
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import verify_teacher
from tests.dfkd_core.onnx_models import SHAPE, model, node, save

CLASSES, HIDDEN = 5, 8
NOTE = "convolution-head-to-linear"
POOL = node("GlobalAveragePool", ["scores"], ["pooled"])
POOLED: dict[str, list[NodeProto]] = {
    "pooling, flattened": [POOL, node("Flatten", ["pooled"], ["logits"])],
    "pooling, left as it is": [node("GlobalAveragePool", ["scores"], ["logits"])],
    "a window over all pixels": [
        node("AveragePool", ["scores"], ["pooled"], kernel_shape=[4, 6]),
        node("Squeeze", ["pooled", "pixel_axes"], ["logits"]),
    ],
    "a mean": [node("ReduceMean", ["scores", "pixel_axes"], ["logits"], keepdims=0)],
    "a mean over flat pixels": [
        node("Reshape", ["scores", "flat"], ["rows"]),
        node("ReduceMean", ["rows", "last"], ["logits"], keepdims=0),
    ],
    "a mean with the channels last": [
        node("Transpose", ["scores"], ["turned"], perm=[0, 2, 3, 1]),
        node("ReduceMean", ["turned", "inner_axes"], ["logits"], keepdims=0),
    ],
    "two means": [
        node("ReduceMean", ["scores", "last"], ["columns"], keepdims=0),
        node("ReduceMean", ["columns", "last"], ["logits"], keepdims=0),
    ],
    "a temperature": [
        POOL,
        node("Mul", ["pooled", "factor"], ["scaled"]),
        node("Softmax", ["scaled"], ["probabilities"], axis=1),
        node("Flatten", ["probabilities"], ["logits"]),
    ],
}
OTHERWISE: dict[str, list[NodeProto]] = {
    "a rectifier": [node("Relu", ["scores"], ["positive"]), node("GlobalAveragePool", ["positive"], ["logits"])],
    "a maximum": [node("GlobalMaxPool", ["scores"], ["logits"])],
    "a mean of a part": [
        node("AveragePool", ["scores"], ["pooled"], kernel_shape=[2, 2]),
        node("Slice", ["pooled", "zeros", "ones", "axes"], ["logits"]),
    ],
}
CONSTANTS = {
    "pixel_axes": np.array([2, 3]),
    "inner_axes": np.array([1, 2]),
    "flat": np.array([0, CLASSES, -1]),
    "last": np.array([-1]),
    "factor": np.float32(0.5),
    "zeros": np.array([0, 0]),
    "ones": np.array([1, 1]),
    "axes": np.array([2, 3]),
}


def headed(tail: Sequence[NodeProto], *, kernel: int = 1, outputs: int = CLASSES, **attributes: object) -> ModelProto:
    """A convolution, a rectifier, and a convolution that makes `scores`, from which `tail` makes the logits."""
    rng = np.random.default_rng(0)
    weights = {
        "body": rng.standard_normal((HIDDEN, SHAPE[0], 3, 3)).astype(np.float32),
        "head": rng.standard_normal((outputs, HIDDEN, kernel, kernel)).astype(np.float32),
        "bias": rng.standard_normal(outputs).astype(np.float32),
    }
    nodes = [
        node("Conv", ["images", "body"], ["hidden"], pads=[1, 1, 1, 1]),
        node("Relu", ["hidden"], ["bent"]),
        node("Conv", ["bent", "head", "bias"], ["scores"], **attributes),
    ]
    used = {name: CONSTANTS[name] for made in tail for name in made.input if name in CONSTANTS}
    return model([*nodes, *tail], {**weights, **used})


def checked(made: ModelProto, path: Path) -> tuple[list[str], list[str], int]:
    """The normalisations, the offers and the classes of a teacher that computes what ONNX Runtime computes."""
    save(made, path)
    inspection, teacher = inspect_file(path, TeacherSpec()), load_teacher(path, TeacherSpec())
    verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    assert isinstance(teacher.classifier, torch.nn.Linear) == ("features" in inspection.offers)
    return inspection.normalisations, inspection.offers, teacher.num_classes


@pytest.mark.parametrize("tail", POOLED.values(), ids=POOLED)
def test_a_small_convolution_before_a_mean_is_a_linear_layer(tail: Sequence[NodeProto], tmp_path: Path) -> None:
    notes, offers, classes = checked(headed(tail), tmp_path / "teacher.onnx")
    assert NOTE in notes
    assert (offers, classes) == (["features"], CLASSES)


def test_the_features_are_the_means_of_what_the_convolution_reads(tmp_path: Path) -> None:
    path = save(headed(POOLED["a mean"]), tmp_path / "teacher.onnx")
    teacher = load_teacher(path, TeacherSpec())
    images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    logits, features = teacher.forward_with_features(images)
    hidden = torch.relu(torch.nn.functional.conv2d(images, next(teacher.network.parameters()), padding=1))
    assert torch.allclose(features, hidden.mean(dim=(2, 3)), atol=1e-5)
    assert isinstance(teacher.classifier, torch.nn.Linear)
    assert torch.allclose(logits, teacher.classifier(features), atol=1e-5)


@pytest.mark.parametrize("tail", OTHERWISE.values(), ids=OTHERWISE)
def test_what_does_not_commute_stays_a_convolution(tail: Sequence[NodeProto], tmp_path: Path) -> None:
    notes, offers, _ = checked(headed(tail), tmp_path / "teacher.onnx")
    assert NOTE not in notes
    assert offers == []


def test_a_convolution_with_a_stride_stays_a_convolution(tmp_path: Path) -> None:
    notes, _, _ = checked(headed(POOLED["a mean"], strides=[2, 2]), tmp_path / "teacher.onnx")
    assert NOTE not in notes


def test_a_convolution_over_its_whole_input_is_a_linear_layer(tmp_path: Path) -> None:
    whole = [node("Flatten", ["scores"], ["logits"])]
    made = headed(whole, kernel=4)
    body = [made.graph.node[0], made.graph.node[1]]
    pool = node("AveragePool", ["bent"], ["square"], kernel_shape=[1, 3])
    made.graph.node[2].input[0] = "square"
    last = list(made.graph.node[2:])
    del made.graph.node[:]
    made.graph.node.extend([*body, pool, *last])
    notes, offers, _ = checked(made, tmp_path / "teacher.onnx")
    assert NOTE in notes
    assert offers == ["features"]


def test_one_number_of_a_convolution_tells_two_classes_apart(tmp_path: Path) -> None:
    notes, offers, classes = checked(headed(POOLED["pooling, flattened"], outputs=1), tmp_path / "teacher.onnx")
    assert NOTE in notes
    assert (offers, classes) == (["features"], 2)
