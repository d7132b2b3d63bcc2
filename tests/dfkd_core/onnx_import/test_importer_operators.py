"""Every operator of the whitelist, in the forms of old and new operator sets, against ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto

from dfkd_core.onnx_import.operators import ACCEPTED
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import verify_teacher
from tests.dfkd_core.onnx_import.operator_models import (
    attention,
    bounded,
    folded_patches,
    gemm,
    logical,
    logical_test,
    mask_as_number,
    masked,
    on_positive,
    product_of_images,
    real,
    resized,
    sampled,
    signed_root,
    split_in_two,
    unary,
    whole,
    with_constants,
)
from tests.dfkd_core.onnx_models import flattened, node, save

CASES: dict[str, ModelProto] = {
    **{op: unary(op) for op in ("Relu", "LeakyRelu", "Elu", "Celu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softsign")},
    **{op: unary(op) for op in ("Mish", "HardSwish", "HardSigmoid", "Erf", "Exp", "Abs", "Neg", "Sin", "Cos")},
    **{op: on_positive(op) for op in ("Log", "Sqrt", "Reciprocal")},
    **{f"masked {op}": masked(op) for op in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")},
    **{op: logical(op) for op in ("And", "Or")},
    **{op: unary(op) for op in ("Atan", "Sinh", "Cosh", "Asinh")},
    **{op: bounded(op) for op in ("Asin", "Acos", "Atanh", "Tan")},
    "Acosh": flattened(
        [node("Exp", ["images"], ["e"]), node("Add", ["e", "c"], ["p"]), node("Acosh", ["p"])], {"c": np.float32(1.2)}
    ),
    "Sign": signed_root(),
    "Shrink": unary("Shrink", lambd=0.3, bias=0.2),
    "Swish": unary("Swish", opset=24, alpha=0.7),
    "mask cast to truth": mask_as_number(9),
    "mask cast to whole numbers": mask_as_number(6),
    "LeakyRelu slope": unary("LeakyRelu", alpha=0.3),
    "ThresholdedRelu": unary("ThresholdedRelu", alpha=0.4),
    "Selu own numbers": unary("Selu", alpha=1.5, gamma=0.7),
    "HardSigmoid sixth": unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    "Gelu exact": unary("Gelu", opset=20),
    "Gelu tanh": unary("Gelu", opset=20, approximate="tanh"),
    "Clip inputs": with_constants("Clip", np.float32(-0.5), np.float32(0.8)),
    "Clip attributes": unary("Clip", opset=10, min=-0.5, max=0.8),
    "Clip below only": with_constants("Clip", np.float32(0)),
    "PRelu": with_constants("PRelu", real(4, 1, 1)),
    "Softmax last": unary("Softmax", axis=-1),
    "Softmax channels": unary("Softmax", axis=1),
    "LogSoftmax": unary("LogSoftmax", axis=2),
    "Softmax old": flattened([node("Softmax", ["images"], axis=3)], opset=11),
    **{op: with_constants(op, real(4, 1, 1)) for op in ("Add", "Sub", "Mul")},
    "Div": with_constants("Div", np.abs(real(6)) + 1),
    "Div by images": flattened([node("Exp", ["images"], ["e"]), node("Div", ["c", "e"])], {"c": real(4, 4, 6)}),
    "Pow": with_constants("Pow", np.float32(2)),
    "Max": with_constants("Max", real(6), np.float32(-0.2)),
    "Min": with_constants("Min", real(6), np.float32(0.2)),
    "Sum": with_constants("Sum", real(6), real(4, 1, 1)),
    "Mean": with_constants("Mean", real(6), real(4, 1, 1)),
    "Identity": unary("Identity"),
    "Cast to half and back": flattened([node("Cast", ["images"], ["h"], to=1), node("Cast", ["h"], to=1)]),
    "CastLike": with_constants("CastLike", real(1)),
    "Conv": with_constants("Conv", real(5, 4, 3, 3), real(5), pads=[1, 1, 1, 1]),
    "Conv strided dilated": with_constants("Conv", real(5, 4, 2, 2), strides=[1, 2], dilations=[2, 1]),
    "Conv grouped": with_constants("Conv", real(8, 2, 3, 3), group=2, pads=[1, 0, 1, 0]),
    "Conv lopsided": with_constants("Conv", real(5, 4, 3, 3), pads=[0, 1, 1, 0]),
    "Conv same upper": with_constants("Conv", real(5, 4, 3, 2), auto_pad="SAME_UPPER", strides=[2, 2]),
    "Conv same lower": with_constants("Conv", real(5, 4, 3, 2), auto_pad="SAME_LOWER"),
    "Conv valid": with_constants("Conv", real(5, 4, 3, 3), auto_pad="VALID"),
    "ConvTranspose": with_constants(
        "ConvTranspose", real(4, 5, 3, 2), real(5), strides=[2, 3], pads=[1, 0, 1, 0], output_padding=[1, 2]
    ),
    "ConvTranspose grouped dilated": with_constants("ConvTranspose", real(4, 3, 2, 3), group=2, dilations=[2, 1]),
    "ConvTranspose lopsided": with_constants("ConvTranspose", real(4, 5, 3, 3), strides=[2, 2], pads=[0, 1, 1, 0]),
    "MaxPool": unary("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    "MaxPool ceil": unary("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1]),
    "MaxPool lopsided": unary("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    "MaxPool dilated": unary("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]),
    "AveragePool": unary("AveragePool", kernel_shape=[2, 3], strides=[2, 2]),
    "AveragePool padded": unary("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "AveragePool counted": unary("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "AveragePool lopsided": unary("AveragePool", kernel_shape=[3, 3], pads=[0, 0, 1, 1]),
    "AveragePool lopsided counted": unary("AveragePool", kernel_shape=[3, 3], pads=[0, 0, 1, 1], count_include_pad=1),
    "AveragePool of volumes": flattened(
        [
            node("Unsqueeze", ["images", "axis"], ["volumes"]),
            node("AveragePool", ["volumes"], ["means"], kernel_shape=[3, 1, 1], pads=[1, 0, 0, 1, 0, 0]),
            node("Squeeze", ["means", "axis"]),
        ],
        {"axis": whole(1)},
    ),
    "Col2Im": folded_patches(pads=[0, 0, 0, 0]),
    "Col2Im padded": folded_patches(pads=[1, 0, 1, 0], strides=[1, 2], size=(3, 13)),
    "Col2Im dilated lopsided": folded_patches(pads=[1, 0, 0, 2], dilations=[2, 1], size=(5, 5)),
    "GlobalAveragePool": unary("GlobalAveragePool"),
    "GlobalMaxPool": unary("GlobalMaxPool"),
    "Gemm": gemm(),
    "Gemm transposed": gemm(transB=1, alpha=0.5, beta=2.0),
    "MatMul constant": with_constants("MatMul", real(6, 3)),
    "MatMul constant first": flattened([node("MatMul", ["c", "images"])], {"c": real(3, 4)}),
    "MatMul stack of constants": with_constants("MatMul", real(4, 6, 3)),
    "MatMul vector": with_constants("MatMul", real(6)),
    "MatMul of images": product_of_images(),
    "Einsum": with_constants("Einsum", real(6, 3, 4), equation="nchw,wkc->nkh"),
    "Einsum of images": flattened([node("Einsum", ["images", "images"], equation="b c h w, b c i w -> b c h i")]),
    "Einsum alone": unary("Einsum", equation="nchw->nwc"),
    "Einsum ellipsis": with_constants("Einsum", real(6, 3), equation="...i,ij->...j"),
    "Einsum implicit": with_constants("Einsum", real(6, 3), equation="abcd,de"),
    "Attention": attention(),
    "Attention scaled": attention(scale=0.3, softcap=2.0),
    "Attention causal": attention(is_causal=1),
    "Attention mask": attention(mask=real(6, 6)),
    "Attention truth mask": attention(mask=np.tri(6, dtype=bool)),
    "Attention folded": attention(rank=3),
    "Attention shared keys": attention(rank=3, heads=6, shared=2),
    "RMSNormalization": with_constants("RMSNormalization", real(6), opset=23, epsilon=1e-3),
    "RMSNormalization axes": with_constants("RMSNormalization", real(4, 6), opset=23, axis=2),
    "Trilu": with_constants("Trilu", np.array(1, np.int64), upper=1),
    "CumSum": with_constants("CumSum", np.array(2, np.int64)),
    "CumSum from behind": with_constants("CumSum", np.array(-1, np.int64), exclusive=1, reverse=1),
    "IsNaN": logical_test("IsNaN"),
    "IsInf": logical_test("IsInf"),
    "IsInf one sign": logical_test("IsInf", detect_negative=0),
    "Trilu lower": unary("Trilu", upper=0),
    "BatchNormalization": with_constants(
        "BatchNormalization", real(4), real(4), real(4), np.abs(real(4)), epsilon=1e-3
    ),
    "InstanceNormalization": with_constants("InstanceNormalization", real(4), real(4), epsilon=1e-4),
    "LayerNormalization": with_constants("LayerNormalization", real(6), real(6)),
    "LayerNormalization axes": with_constants("LayerNormalization", real(4, 6), real(4, 6), axis=2),
    "LayerNormalization no bias": with_constants("LayerNormalization", real(6), epsilon=1e-3),
    "LayerNormalization broadcast": with_constants("LayerNormalization", real(1), real(6)),
    "GroupNormalization": with_constants("GroupNormalization", real(4), real(4), opset=21, num_groups=2),
    "GroupNormalization old": with_constants("GroupNormalization", real(2), real(2), opset=18, num_groups=2),
    "LRN": unary("LRN", size=3, alpha=0.02, beta=0.6, bias=1.5),
    "LpNormalization": unary("LpNormalization", axis=1, p=2),
    "LpNormalization L1": unary("LpNormalization", axis=3, p=1),
    **{
        f"{op} attribute": unary(op, opset=11, axes=[1, 3], keepdims=0)
        for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare")
    },
    "ReduceProd": unary("ReduceProd", opset=11, axes=[2, 3], keepdims=1),
    "ReduceLogSumExp": unary("ReduceLogSumExp", opset=11, axes=[-1]),
    "ReduceLogSum": flattened(
        [node("Exp", ["images"], ["e"]), node("ReduceLogSum", ["e"], axes=[1, 3], keepdims=0)], opset=11
    ),
    "ReduceMean input": with_constants("ReduceMean", whole(-1, -2), keepdims=1),
    "ReduceSum nothing": with_constants("ReduceSum", whole(), noop_with_empty_axes=1),
    "Flatten": flattened([node("Flatten", ["images"], axis=-3)]),
    "Reshape zeros": with_constants("Reshape", whole(0, 2, 2, -1)),
    "Squeeze": flattened(
        [node("GlobalAveragePool", ["images"], ["p"]), node("Squeeze", ["p", "axes"])], {"axes": whole(2, 3)}
    ),
    "Squeeze attribute": flattened(
        [node("GlobalAveragePool", ["images"], ["p"]), node("Squeeze", ["p"], axes=[-1])], opset=11
    ),
    "Unsqueeze": with_constants("Unsqueeze", whole(1, -1)),
    "Unsqueeze attribute": unary("Unsqueeze", opset=11, axes=[2]),
    "Transpose": unary("Transpose", perm=[0, 3, 2, 1]),
    "Concat": flattened([node("Concat", ["images", "images"], axis=-1)]),
    "Split attribute": split_in_two(11),
    "Split input": split_in_two(13),
    "Split evenly": flattened([node("Split", ["images"], ["a", "b"], axis=3, num_outputs=2), node("Mul", ["a", "b"])]),
    "SplitToSequence": flattened(
        [
            node("SplitToSequence", ["images", "size"], ["parts"], axis=1),
            node("SequenceAt", ["parts", "one"], ["second"]),
            node("SequenceAt", ["parts", "last"], ["tail"]),
            node("Concat", ["tail", "second"], axis=1),
        ],
        {"size": np.array(2, np.int64), "one": np.array(1, np.int64), "last": np.array(-2, np.int64)},
    ),
    "Slice": with_constants("Slice", whole(1, 0), whole(2**62, -1), whole(2, 3), whole(1, 2)),
    "Slice backwards": with_constants("Slice", whole(-1), whole(-(2**62)), whole(3), whole(-1)),
    "Slice attribute": unary("Slice", opset=9, starts=[1], ends=[3], axes=[2]),
    "Gather": with_constants("Gather", whole(2, 0, -1), axis=1),
    "Gather one": with_constants("Gather", np.array(-2, np.int64), axis=3),
    "Gather table": with_constants("Gather", np.array([[0, 1], [2, 3]], np.int64), axis=2),
    "GatherND": flattened(
        [
            node("Transpose", ["images"], ["moved"], perm=[2, 3, 0, 1]),
            node("GatherND", ["moved", "places"], ["found"]),
            node("Transpose", ["found"], perm=[1, 0, 2]),
        ],
        {"places": whole(0, 1, -1, -2, 3, 0).reshape(3, 2)},
    ),
    "Expand": flattened(
        [node("ReduceMean", ["images", "axis"], ["m"]), node("Expand", ["m", "shape"])],
        {"axis": whole(1), "shape": whole(1, 3, 1, 1)},
    ),
    "Tile": with_constants("Tile", whole(1, 2, 1, 2)),
    "Pad": with_constants("Pad", whole(0, 0, 1, 2, 0, 1, 0, 1), np.float32(0.7)),
    "Pad attribute": unary("Pad", opset=10, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=-0.5),
    "Pad reflect": with_constants("Pad", whole(0, 0, 1, 2, 0, 0, 2, 1), mode="reflect"),
    "Pad edge": with_constants("Pad", whole(0, 0, 1, 2, 0, 0, 2, 1), mode="edge"),
    "Pad negative": with_constants("Pad", whole(0, 0, -1, 0, 0, 0, 0, -2)),
    "Pad axes": with_constants("Pad", whole(1, 2), np.float32(0), whole(3)),
    "DepthToSpace": unary("DepthToSpace", blocksize=2),
    "DepthToSpace CRD": unary("DepthToSpace", blocksize=2, mode="CRD"),
    "SpaceToDepth": unary("SpaceToDepth", blocksize=2),
    "Resize nearest": with_constants(
        "Resize",
        real(0),
        np.array([1, 1, 2, 2], np.float32),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "Resize sizes": flattened(
        [
            node("Shape", ["images"], ["shape"], end=2),
            node("Concat", ["shape", "side"], ["sizes"], axis=0),
            node("Resize", ["images", "", "", "sizes"], mode="linear", coordinate_transformation_mode="align_corners"),
        ],
        {"side": whole(7, 9)},
    ),
    "Resize half pixel": with_constants("Resize", real(0), np.array([1, 1, 1.5, 2], np.float32), mode="linear"),
    "Resize rounds": resized(scales=[1.5, 0.7], mode="nearest"),
    "Resize rounds up": resized(sizes=[7, 5], mode="nearest", nearest_mode="round_prefer_ceil"),
    "Resize nearest corners": resized(
        sizes=[7, 4], mode="nearest", coordinate_transformation_mode="align_corners", nearest_mode="ceil"
    ),
    "Resize nearest floor": resized(
        sizes=[3, 9], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "Resize pytorch": resized(sizes=[7, 9], mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    "Resize cubic": resized(scales=[2.0, 1.5], mode="cubic"),
    "Resize cubic corners": resized(sizes=[7, 9], mode="cubic", coordinate_transformation_mode="align_corners"),
    "GridSample": sampled(),
    "GridSample corners": sampled(align_corners=1, padding_mode="border"),
    "GridSample nearest": sampled(mode="nearest", padding_mode="reflection"),
    "GridSample cubic": sampled(mode="cubic", padding_mode="zeros"),
    "Upsample": flattened(
        [node("Upsample", ["images", "scales"], mode="nearest")],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        opset=9,
    ),
    "Dropout": flattened([node("Dropout", ["images"])]),
    "Dropout old": unary("Dropout", opset=11, ratio=0.4),
}
ON_CONSTANTS_ONLY = {"Floor", "Ceil", "Round", "Mod", "Xor", "Size", "ConstantOfShape", "Range"}
ON_CONSTANTS_ONLY |= {"Constant"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_and_differentiates_as_onnx_runtime_does(name: str, tmp_path: Path) -> None:
    path = save(CASES[name], tmp_path / "teacher.onnx")
    spec = TeacherSpec(input=InputSpec(shape=[4, 4, 6], mean=[0.5] * 4, std=[0.25] * 4))
    teacher = load_teacher(path, spec)
    depth = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    assert depth.max_abs_diff is not None
    assert depth.gradient_error < 1e-4


def test_the_table_above_leaves_no_operator_out() -> None:
    tested = {entry.op_type for made in CASES.values() for entry in made.graph.node}
    assert ACCEPTED - tested == ON_CONSTANTS_ONLY
