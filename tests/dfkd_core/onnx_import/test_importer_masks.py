"""Attention with a boolean mask as PyTorch's exporter writes it: Softmax, IsNaN, and Where, which puts 0 for NaN."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto

from dfkd_core.interface import plain_interface
from dfkd_core.onnx_import.reader import read_plan
from dfkd_core.output.onnx_export import export_onnx
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import verify_teacher
from tests.dfkd_core.onnx_models import SHAPE, flattened, node, save

pytestmark = pytest.mark.usefixtures("exporter_table")

SPEC = TeacherSpec(input=InputSpec(shape=[4, 4, 6], mean=[0.5] * 4, std=[0.25] * 4))
CAUSAL = np.tri(4, dtype=bool)
HIDDEN_ROW = CAUSAL & np.array([[False], [True], [True], [True]])


def masked_attention(mask: np.ndarray, *, batch: int | str = "batch", filler: float = 0.0) -> ModelProto:
    """softmax(X Xᵀ + mask) X, the mask expanded to (N, 4, 4, 4) and turned into numbers as `sdpa` does."""
    shape = [
        node("Shape", ["images"], ["n"], end=1),
        node("Concat", ["n", "tail"], ["shape"], axis=0),
        node("Expand", ["mask", "shape"], ["masks"]),
    ]
    nodes = [
        *shape,
        node("Where", ["masks", "zero", "infinite"], ["bias"]),
        node("Transpose", ["images"], ["turned"], perm=[0, 1, 3, 2]),
        node("MatMul", ["images", "turned"], ["products"]),
        node("Add", ["products", "bias"], ["scores"]),
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("IsNaN", ["weights"], ["undefined"]),
        node("Where", ["undefined", "filler", "weights"], ["safe"]),
        node("MatMul", ["safe", "images"]),
    ]
    constants = {"mask": mask, "tail": np.array([4, 4, 4]), "zero": np.float32(0), "infinite": np.float32(-np.inf)}
    return flattened(nodes, constants | {"filler": np.float32(filler)}, opset=20, shape=[batch, *SHAPE])


@pytest.mark.parametrize("batch", ["batch", 1, 3])
@pytest.mark.parametrize("mask", [CAUSAL, HIDDEN_ROW], ids=["causal", "one row hidden"])
def test_a_boolean_mask_is_computed_with_its_gradient(mask: np.ndarray, batch: int | str, tmp_path: Path) -> None:
    path = save(masked_attention(mask, batch=batch), tmp_path / "masked.onnx")
    teacher = load_teacher(path, SPEC)
    depth = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    assert depth.max_abs_diff is not None
    assert depth.gradient_error < 1e-4


def test_a_row_that_is_hidden_gives_no_gradient_and_no_second_one(tmp_path: Path) -> None:
    teacher = load_teacher(save(masked_attention(HIDDEN_ROW), tmp_path / "masked.onnx"), SPEC)
    images = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    network = teacher.network.double()
    assert torch.autograd.gradcheck(network, images)
    assert torch.autograd.gradgradcheck(network, images)


@pytest.mark.parametrize("mask", [CAUSAL, HIDDEN_ROW], ids=["causal", "one row hidden"])
def test_a_student_cut_out_of_such_a_teacher_has_a_file_that_is_read_again(mask: np.ndarray, tmp_path: Path) -> None:
    teacher = load_teacher(save(masked_attention(mask), tmp_path / "masked.onnx"), SPEC)
    student = tmp_path / "student.onnx"
    export_onnx(teacher.network, student, plain_interface(teacher.num_classes), teacher.input_space)
    again = load_teacher(student, SPEC)
    verify_teacher(again, student, generator=torch.Generator().manual_seed(0))
    images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.network(images), teacher.network(images))


def test_the_three_operators_are_one_step(tmp_path: Path) -> None:
    plan, _ = read_plan(save(masked_attention(CAUSAL), tmp_path / "masked.onnx"))
    assert "SafeSoftmax" in {step.op for step in plan.steps}
    assert not {"Softmax", "IsNaN"} & {step.op for step in plan.steps}


def test_another_number_than_zero_is_put_for_nan(tmp_path: Path) -> None:
    path = save(masked_attention(CAUSAL, filler=0.25), tmp_path / "masked.onnx")
    plan, _ = read_plan(path)
    assert {"Softmax", "IsNaN"} <= {step.op for step in plan.steps}
    verify_teacher(load_teacher(path, SPEC), path, generator=torch.Generator().manual_seed(0))
