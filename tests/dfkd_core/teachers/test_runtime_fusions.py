"""ONNX Runtime's optimiser fuses a Pad of zeros into the MaxPool behind it, whose own border is minus infinity."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto

from dfkd_core.interface import plain_interface
from dfkd_core.networks.teacher import InputSpace
from dfkd_core.output.onnx_export import PARITY_BATCHES, check_parity, export_onnx
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import verify_teacher
from tests.dfkd_core.onnx_models import model, node, save

SPEC = TeacherSpec(input=InputSpec(shape=[4, 4, 6], mean=[0.5] * 4, std=[0.25] * 4))


def negative_below_zeros() -> ModelProto:
    """A convolution with negative results, a border of zeros, a pool over both, and a linear layer."""
    rng = np.random.default_rng(0)
    constants = {
        "kernel": rng.normal(size=(8, 4, 3, 3)).astype(np.float32),
        "bias": np.full(8, -20, np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "matrix": rng.normal(size=(8, 5)).astype(np.float32),
    }
    nodes = [
        node("Conv", ["images", "kernel", "bias"], ["c"], pads=[1, 1, 1, 1]),
        node("Pad", ["c", "pads"], ["p"]),
        node("MaxPool", ["p"], ["m"], kernel_shape=[3, 3], strides=[2, 2]),
        node("GlobalAveragePool", ["m"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("MatMul", ["f", "matrix"], ["logits"]),
    ]
    return model(nodes, constants)


def test_what_is_compared_is_the_graph_and_not_what_the_optimiser_makes_of_it(tmp_path: Path) -> None:
    path = save(negative_below_zeros(), tmp_path / "teacher.onnx")
    teacher = load_teacher(path, SPEC)
    images = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    fused = onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})[0]
    assert np.abs(fused - teacher(images).numpy()).max() > 1  # else the optimiser is mended, and this file can go
    depth = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    assert depth.max_abs_diff is not None


def test_a_student_of_that_graph_computes_the_same_in_onnx_runtime(tmp_path: Path) -> None:
    network = load_teacher(save(negative_below_zeros(), tmp_path / "teacher.onnx"), SPEC).network
    space = InputSpace((4, 4, 6), (-2.0,) * 4, (2.0,) * 4, True)
    path, interface = tmp_path / "student.onnx", plain_interface(5)
    export_onnx(network, path, interface, space, opset=18)
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(count, 4, 4, 6, generator=generator) for count in PARITY_BATCHES]
    check_parity(network, path, interface, space, images_by_batch=images)
