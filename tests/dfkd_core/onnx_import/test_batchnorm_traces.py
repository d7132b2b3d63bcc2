"""BatchNormalization is recognised by the traces that exporters leave; without traces nobody can tell."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto
from torch import nn

from dfkd_core.inspection.inspection import Inspection, inspect_file
from dfkd_core.spec.teacher import TeacherSpec
from tests.dfkd_core.onnx_models import classifier, flattened, node, save

pytestmark = pytest.mark.usefixtures("exporter_table")

EACH = np.linspace(0.5, 1.5, 8, dtype=np.float32).reshape(1, 8, 1, 1)
CONVOLUTION = np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)


def status(made: ModelProto, path: Path) -> str:
    return inspect_file(save(made, path), TeacherSpec()).batchnorm.status


def named(producer: str, weight: str, bias: str, output: str = "c", **metadata: str) -> ModelProto:
    """The classifier of `producer` whose convolution has these names."""
    made = classifier()
    made.producer_name = producer
    convolution, relu = made.graph.node[:2]
    convolution.input[1:], convolution.output[0], relu.input[0] = [weight, bias], output, output
    for tensor, name in zip(made.graph.initializer, (weight, bias), strict=False):
        tensor.name = name
    for key, value in metadata.items():
        convolution.metadata_props.add(key=key, value=value)
    return made


@pytest.mark.parametrize(
    ("producer", "weight", "bias", "output", "found"),
    [
        ("pytorch", "conv.weight", "conv.bias", "/conv/Conv_output_0", "none"),
        ("pytorch", "onnx::Conv_12", "onnx::Conv_13", "/conv/Conv_output_0", "folded"),
        ("pytorch", "conv.weight", "conv.weight_bias", "relu", "folded"),
        ("pytorch", "conv.weight", "conv.bias", "/bn/BatchNormalization_output_0", "folded"),  # onnxslim
        ("tf2onnx", "weights_fused_bn__12", "bias_fused_bn__13", "net/FusedBatchNormV3:0", "folded"),
        ("", "ConvBnFusion_W_conv.weight", "ConvBnFusion_BN_B_bn.bias", "c", "folded"),  # ONNX Runtime
        ("", "conv.weight", "conv.bias", "c", "unknown"),
        ("MATLAB Deep Learning Toolbox Converter for ONNX Model Format", "conv_W", "conv_B", "conv", "unknown"),
    ],
)
def test_names_tell_where_a_bias_comes_from(  # noqa: PLR0917 - the parameters of a test
    producer: str, weight: str, bias: str, output: str, found: str, tmp_path: Path
) -> None:
    assert status(named(producer, weight, bias, output), tmp_path / "teacher.onnx") == found


def test_metadata_of_the_newer_exporter_tell_what_was_merged(tmp_path: Path) -> None:
    key, path = "pkg.torch.onnx.class_hierarchy", tmp_path / "teacher.onnx"
    own = "['nets.BatchNormFree', 'torch.nn.modules.conv.Conv2d', 'aten.conv2d.default']"
    norm = "['nets.Net', 'torch.nn.modules.batchnorm.BatchNorm2d', 'aten.batch_norm.default']"
    assert status(named("pytorch", "a.weight", "a.bias", **{key: own}), path) == "none"
    assert status(named("pytorch", "a.weight", "a.bias", **{key: norm}), path) == "folded"
    rule = {key: own, "pkg.onnxscript.rewriter.rule_name": "FuseBatchNormIntoConv"}
    assert status(named("pytorch", "a.weight", "a.bias", **rule), path) == "folded"


def arithmetic(nodes: Sequence[NodeProto], *, behind: bool = True) -> ModelProto:
    """Nodes from `x` to `out`, behind a convolution without bias, or at the images."""
    constants = {"mean": EACH, "scale": EACH, "bias": EACH, "conv": CONVOLUTION}
    if not behind:
        constants |= dict.fromkeys(("mean", "scale", "bias"), EACH[:, :4])
    first = node("Conv", ["images", "conv"], ["x"]) if behind else node("Identity", ["images"], ["x"])
    return flattened([first, *nodes], constants)


def test_a_layer_that_is_spelled_out_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    centred = [node("Sub", ["x", "mean"], ["s"]), node("Mul", ["s", "scale"], ["m"]), node("Add", ["m", "bias"])]
    scaled = [node("Mul", ["x", "scale"], ["m"]), node("Add", ["m", "bias"])]
    shifted = [node("Mul", ["x", "scale"], ["m"]), node("Sub", ["m", "bias"])]
    assert [status(arithmetic(nodes), path) for nodes in (centred, scaled, shifted)] == ["folded"] * 3
    behind_relu = [node("Relu", ["x"], ["r"]), *[node("Mul", ["r", "scale"], ["m"]), node("Add", ["m", "bias"])]]
    assert status(arithmetic(behind_relu), path) == "none"
    assert status(arithmetic(centred, behind=False), path) == "none"


class Biased(nn.Sequential):
    """A convolution with a bias of its own before its BatchNorm: the fold leaves both names as they were."""

    def __init__(self, *, norm: bool) -> None:
        middle = nn.BatchNorm2d(8) if norm else nn.Identity()
        super().__init__(nn.Conv2d(3, 8, 3), middle, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))


@pytest.mark.parametrize(("norm", "found"), [(True, "folded"), (False, "none")])
def test_a_fold_into_a_bias_of_the_networks_own_is_seen(norm: bool, found: str, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            Biased(norm=norm).eval(), (torch.randn(2, 3, 8, 8),), path, dynamo=True, external_data=False, verbose=False
        )
    seen: Inspection = inspect_file(path, TeacherSpec())
    assert (seen.exporter, seen.batchnorm.status) == ("pytorch-dynamo", found)
