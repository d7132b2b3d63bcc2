"""Sub-graphs that depend on no image are computed first: weights, masks and shapes become constants of the plan."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import nn

from dfkd_core.errors import OperatorUnsupported
from dfkd_core.inspection.inspection import inspect_file
from dfkd_core.onnx_import.ops.reference_folding import ON_CONSTANTS
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import Teacher, load_teacher
from dfkd_core.teachers.verification import verify_teacher
from tests.dfkd_core.onnx_import.test_importer_limits import allocating_less_than
from tests.dfkd_core.onnx_models import flattened, node, refused, save

RNG = np.random.default_rng(2)
SPEC = TeacherSpec(input=InputSpec(shape=[4, 4, 6], mean=[0.5] * 4, std=[0.25] * 4))
WEIGHT = RNG.normal(size=(6, 4, 3, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def verified(made: ModelProto, path: Path) -> Teacher:
    """The teacher, after its logits were compared with ONNX Runtime's and its gradient with finite differences."""
    teacher = load_teacher(save(made, path), SPEC)
    depth = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    assert depth.max_abs_diff is not None
    assert depth.gradient_error < 1e-4
    return teacher


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def standardized(*, training: bool) -> ModelProto:
    """A convolution whose weights a BatchNormalization standardises, as exporters write `ScaledStdConv`."""
    outputs = ["normal", "mean_out", "variance_out"] if training else ["normal"]
    mode = {"training_mode": 1, "momentum": 1.0} if training else {}
    nodes = [
        node("Reshape", ["weight", "rows"], ["flat"]),
        node("ReduceMean", ["flat", "axes"], ["mean"], keepdims=0),
        node("ReduceMean", ["flat", "axes"], ["kept"], keepdims=1),
        node("Sub", ["flat", "kept"], ["centred"]),
        node("Mul", ["centred", "centred"], ["square"]),
        node("ReduceMean", ["square", "axes"], ["variance"], keepdims=0),
        node("BatchNormalization", ["flat", "one", "zero", "mean", "variance"], outputs, epsilon=1e-6, **mode),
        node("Shape", ["weight"], ["shape"]),
        node("Reshape", ["normal", "shape"], ["standard"]),
        node("Conv", ["images", "standard"], ["out"]),
    ]
    constants: dict[str, np.ndarray] = {"weight": WEIGHT, "rows": whole(1, 6, -1), "axes": whole(0, 2)}
    constants |= {"one": np.ones(6, np.float32), "zero": np.zeros(6, np.float32)}
    return flattened(nodes, constants)


@pytest.mark.parametrize("training", [True, False])
def test_standardised_weights_are_the_weights_of_a_convolution(tmp_path: Path, *, training: bool) -> None:
    path = tmp_path / "standardised.onnx"
    teacher = verified(standardized(training=training), path)
    (conv,) = (module for module in teacher.modules() if isinstance(module, nn.Conv2d))
    rows = torch.tensor(WEIGHT).reshape(6, -1)
    expected = (rows - rows.mean(1, keepdim=True)) / (rows.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    assert torch.allclose(conv.weight, expected.reshape(6, 4, 3, 3), atol=1e-5)
    found = inspect_file(path, SPEC)
    assert found.parameters == WEIGHT.size + 2 * 6  # and the scale and the offset, which the file stores
    assert found.normalisations == []
    assert found.batchnorm.present == 0
    assert "batchnorm" not in found.offers


def test_a_batchnorm_of_images_is_judged_by_its_computed_statistics(tmp_path: Path) -> None:
    nodes = [
        node("Mul", ["half", "one"], ["mean"]),
        node("BatchNormalization", ["images", "one", "zero", "mean", "one"], ["b", "m", "v"], training_mode=1),
        node("Tanh", ["b"]),
    ]
    constants = {"half": np.float32(0.5), "one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32)}
    path = tmp_path / "training.onnx"
    verified(flattened(nodes, constants), path)
    assert inspect_file(path, SPEC).normalisations == ["batchnorm-to-eval"]


def on_constants(op: str, *arrays: np.ndarray, outputs: int = 1, opset: int = 18, **attributes: Any) -> ModelProto:
    """The first output of an operator on constants, cast to real numbers, its sum added to the images."""
    names = [f"c{at}" for at in range(len(arrays))]
    nodes = [
        node(op, names, [f"o{at}" for at in range(outputs)], **attributes),
        node("Cast", ["o0"], ["real"], to=1),
        node("Sin", ["real"], ["curved"]),
        node("ReduceSum", ["curved"], ["sum"], keepdims=0),
        node("Add", ["images", "sum"]),
    ]
    return flattened(nodes, dict(zip(names, arrays, strict=True)), opset=opset)


GRID = np.arange(12, dtype=np.float32).reshape(3, 4)
CONSTANTS: dict[str, ModelProto] = {
    "ScatterND": on_constants("ScatterND", GRID, whole(0, 1, 2, 3).reshape(2, 2), np.float32([7, 8])),
    "ScatterND add": on_constants("ScatterND", GRID, whole(1, 1).reshape(2, 1), GRID[:2], reduction="add"),
    "ScatterElements": on_constants("ScatterElements", GRID, whole(2, 0).reshape(1, 2), np.float32([[5, 6]]), axis=0),
    "GatherElements": on_constants("GatherElements", GRID, whole(2, 0, 1, 1).reshape(1, 4), axis=0),
    "CumSum": on_constants("CumSum", GRID, np.array(1, np.int64)),
    "CumSum whole": on_constants("CumSum", whole(1, 1, 0, 1), np.array(0, np.int64), exclusive=1, reverse=1),
    "OneHot": on_constants("OneHot", whole(1, 0), np.array(3, np.int64), np.float32([0.5, 2]), axis=-1),
    "NonZero": on_constants("NonZero", GRID % 3),
    "EyeLike": on_constants("EyeLike", GRID, k=1, dtype=1),
    "ArgMax": on_constants("ArgMax", GRID % 3, axis=1),
    "ArgMin": on_constants("ArgMin", GRID % 3, axis=0, keepdims=0),
    "TopK": on_constants("TopK", GRID % 5, whole(2), outputs=2, axis=1),
    "Unique": on_constants("Unique", GRID % 3),
    "Compress": on_constants("Compress", GRID, np.array([True, False, True]), axis=0),
    "BitShift": on_constants("BitShift", np.uint8([1, 5]), np.uint8([2, 1]), direction="LEFT"),
    "BitwiseAnd": on_constants("BitwiseAnd", np.int32([6, 3]), np.int32([3])),
    "BitwiseOr": on_constants("BitwiseOr", np.int32([6, 3]), np.int32([3])),
    "BitwiseXor": on_constants("BitwiseXor", np.int32([6, 3]), np.int32([3])),
    "BitwiseNot": on_constants("BitwiseNot", np.int32([6, 3])),
    "IsInf": on_constants("IsInf", np.float32([np.inf, -np.inf, 1]), detect_negative=0),
    "IsNaN": on_constants("IsNaN", np.float32([np.inf, 1])),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_an_operator_on_constants_computes_what_onnx_runtime_does(name: str, tmp_path: Path) -> None:
    verified(CONSTANTS[name], tmp_path / "teacher.onnx")


def test_the_table_above_leaves_no_operator_out() -> None:
    assert {entry.op_type for made in CONSTANTS.values() for entry in made.graph.node} >= ON_CONSTANTS.keys()


def grown(*, heads: int = 1, own: bool = False) -> ModelProto:
    """A mask (N · heads, 1, 4, 6) of constants, which every image shares unless it has its `own`."""
    nodes = [
        node("Shape", ["images"], ["n"], end=1),
        node("Mul", ["n", "heads"], ["rows"]),
        node("Concat", ["rows", "tail"], ["shape"], axis=0),
        node("Expand", ["mask", "shape"], ["many"]),
        node("Reshape", ["images", "split"], ["parts"]),
    ]
    constants: dict[str, np.ndarray] = {"heads": whole(heads), "tail": whole(4 // heads, 4, 6)}
    constants |= {"split": whole(-1, 4 // heads, 4, 6), "low": np.float32(0.1)}
    constants |= {"mask": np.tri(4, 6, dtype=bool)}
    if own:
        nodes += [
            node("Cast", ["many"], ["ones"], to=7),
            node("CumSum", ["ones", "axis"], ["sums"]),
            node("Less", ["sums", "limit"], ["masks"]),
        ]
        constants |= {"axis": np.array(0, np.int64), "limit": np.array(2, np.int64)}
    last = "masks" if own else "many"
    return flattened([*nodes, node("Where", [last, "parts", "low"], ["w"]), *back()], constants | {"all": whole(0, 96)})


def back() -> list[Any]:
    """The first axis is again that of the images."""
    return [node("Shape", ["images"], ["sides"]), node("Reshape", ["w", "sides"])]


@pytest.mark.parametrize("heads", [1, 2])
def test_a_mask_that_grows_with_the_batch_is_repeated_for_each_image(heads: int, tmp_path: Path) -> None:
    verified(grown(heads=heads), tmp_path / "mask.onnx")


def test_positions_that_are_counted_in_a_mask_of_zeros_are_computed_whatever_the_batch(tmp_path: Path) -> None:
    """EdgeNeXt's encoding: the mask has the batch's size, becomes boolean and is summed up along the rows."""
    nodes = [
        node("Shape", ["images"], ["n"], end=1),
        node("Concat", ["n", "tail"], ["shape"], axis=0),
        node("ConstantOfShape", ["shape"], ["zeros"], value=numpy_helper.from_array(np.zeros(1, np.float32))),
        node("Cast", ["zeros"], ["hidden"], to=9),
        node("Not", ["hidden"], ["shown"]),
        node("Cast", ["shown"], ["ones"], to=1),
        node("CumSum", ["ones", "axis"], ["places"]),
        node("Mul", ["places", "frequencies"], ["angles"]),
        node("Sin", ["angles"], ["waves"]),
        node("Conv", ["waves", "weight"], ["encoding"]),
        node("Add", ["images", "encoding"]),
    ]
    constants: dict[str, np.ndarray] = {"tail": whole(1, 4, 6), "axis": np.array(3, np.int64)}
    constants |= {"frequencies": np.float32([1, 0.5, 0.1]).reshape(1, 3, 1, 1), "weight": WEIGHT[:4, :3, 1:2, 1:2]}
    verified(flattened(nodes, constants), tmp_path / "positions.onnx")


def test_a_stored_token_that_is_repeated_for_each_image_stays_one_weight(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["images"], ["n"], end=1),
        node("Concat", ["n", "tail"], ["shape"], axis=0),
        node("Expand", ["token", "shape"], ["tokens"]),
        node("Concat", ["images", "tokens"], axis=2),
    ]
    token = RNG.normal(size=(1, 4, 1, 6)).astype(np.float32)
    teacher = verified(flattened(nodes, {"tail": whole(4, 1, 6), "token": token}), tmp_path / "token.onnx")
    assert [tuple(weight.shape) for weight in teacher.parameters() if weight.dim()] == [token.shape]


def test_a_mask_that_differs_between_images_is_refused(tmp_path: Path) -> None:
    refusal = refused(grown(own=True), tmp_path / "mask.onnx", kind=OperatorUnsupported)
    assert "a number computed from the batch size meets the images" in refusal.detail


@pytest.mark.parametrize(
    "made",
    [
        on_constants("OneHot", whole(1, 0), np.array(2**40, np.int64), np.float32([0, 1])),
        on_constants("NonZero", np.zeros((2**11, 2**11), np.uint8)),
        on_constants("GatherElements", GRID, np.zeros((1, 2**22), np.int64)),
    ],
)
def test_what_is_computed_from_constants_is_bounded_before_it_is_computed(made: ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with allocating_less_than(2**24 + 3 * len(made.SerializeToString())):
        assert "too" in refused(made, path, kind=OperatorUnsupported).detail


def test_many_small_computations_are_bounded_together(tmp_path: Path) -> None:
    nodes = [node("ArgMax", [f"a{at}"], [f"a{at + 1}"]) for at in range(20_000)]
    last = [node("Cast", ["a20000"], ["real"], to=1), node("Add", ["images", "real"])]
    made = flattened([*nodes, *last], {"a0": np.float32([1.0])})
    assert "constants that the graph computes" in refused(made, tmp_path / "m.onnx", kind=OperatorUnsupported).detail


@pytest.mark.parametrize("index", [-(2**40), 2**40, 5, -(2**63)])
@pytest.mark.parametrize(
    ("op", "shape", "more"),
    [
        ("GatherElements", (1, 1), ()),
        ("ScatterElements", (1, 1), (np.float32([[1]]),)),
        ("ScatterND", (1, 1), (np.float32([[1, 1, 1, 1]]),)),
    ],
)
def test_an_index_outside_its_input_is_refused_at_once(
    op: str, shape: tuple[int, ...], more: tuple[np.ndarray, ...], index: int, tmp_path: Path
) -> None:
    made = on_constants(op, GRID, np.full(shape, index, np.int64), *more)
    assert "an index lies outside its input" in refused(made, tmp_path / "m.onnx", kind=OperatorUnsupported).detail
