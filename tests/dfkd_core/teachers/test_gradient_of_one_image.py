"""PyTorch's BatchNorm gives a wrong gradient for one image when attention follows it: the strides of the two differ."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import load_teacher
from tests.dfkd_core.onnx_models import model, node, save

SPEC = TeacherSpec(input=InputSpec(shape=[4, 4, 6], mean=[0.5] * 4, std=[0.25] * 4))


def tokens_behind_batchnorm() -> ModelProto:
    """A convolution, its BatchNorm, and a linear layer over the positions as tokens."""
    rng = np.random.default_rng(0)
    constants = {
        "kernel": rng.normal(size=(8, 4, 3, 3)).astype(np.float32),
        "scale": rng.normal(size=8).astype(np.float32),
        "shift": rng.normal(size=8).astype(np.float32),
        "mean": rng.normal(size=8).astype(np.float32),
        "variance": rng.uniform(0.5, 2, 8).astype(np.float32),
        "shape": np.array([0, 8, 24]),
        "matrix": rng.normal(size=(8, 5)).astype(np.float32),
    }
    nodes = [
        node("Conv", ["images", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["b"]),
        node("Reshape", ["b", "shape"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["t", "matrix"], ["m"]),
        node("Sigmoid", ["m"], ["s"]),
        node("ReduceMean", ["s"], ["logits"], axes=[1], keepdims=0),
    ]
    return model(nodes, constants, opset=13)


def gradient(network: nn.Module, images: Tensor) -> Tensor:
    images = images.clone().requires_grad_(True)
    weights = torch.arange(5.0)
    (found,) = torch.autograd.grad((network(images) * weights).sum(), images)
    return found


def test_the_gradient_of_one_image_is_that_of_the_same_image_among_others(tmp_path: Path) -> None:
    teacher = load_teacher(save(tokens_behind_batchnorm(), tmp_path / "teacher.onnx"), SPEC)
    images = torch.randn(3, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gradient(teacher, images[:1]), gradient(teacher, images)[:1])


def test_pytorch_itself_still_gives_another_gradient() -> None:
    norm = nn.BatchNorm2d(8).eval()
    maps = torch.randn(1, 8, 4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    upstream = torch.randn(1, 24, 8, generator=torch.Generator().manual_seed(1)).transpose(1, 2).view(1, 8, 4, 6)
    (found,) = torch.autograd.grad(norm(maps), maps, upstream)
    with pytest.raises(AssertionError):  # else PyTorch is mended, and BatchNormOfOne can go
        torch.testing.assert_close(found, upstream / (1 + norm.eps) ** 0.5)
