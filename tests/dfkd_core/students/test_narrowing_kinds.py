"""Kinds of graphs whose channels are easily misjudged: what the door says of their copies is what the runner cuts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto

from dfkd_core.errors import StudentError, StudentNotSmaller
from dfkd_core.inspection.inspection import Inspection, parse_file
from dfkd_core.inspection.narrowed import describe_narrowed, narrowed_sizes
from dfkd_core.narrowing.figures import figures_at
from dfkd_core.spec.config import StudentSpec
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.students.narrowing import count_parameters, narrow_to_width
from dfkd_core.teachers.onnx import load_onnx
from dfkd_core.teachers.original import original_of
from tests.dfkd_core.onnx_models import SHAPE, classifier, model, node, save

RNG = np.random.default_rng(0)
PIXELS = SHAPE[1] * SHAPE[2]


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def headed(nodes: Sequence[NodeProto], constants: Mapping[str, np.ndarray], *, channels: int) -> ModelProto:
    """The nodes, which end in maps `out` of `channels`, with pooling and a linear layer of 10 classes behind them."""
    tail = [
        node("GlobalAveragePool", ["out"], ["pooled"]),
        node("Flatten", ["pooled"], ["features"]),
        node("Gemm", ["features", "fc.weight"], ["logits"], transB=1),
    ]
    return model([*nodes, *tail], {**constants, "fc.weight": weights(10, channels)})


def heads_behind_groups() -> ModelProto:
    """Two scales of linear attention, as in EfficientViT: the heads of the second come from a grouped convolution.

    A head has three groups of that convolution, so no head can go without the others of its scale.
    """
    nodes = [
        node("Conv", ["images", "qkv.weight"], ["one"]),
        node("Conv", ["one", "groups.weight"], ["two"], group=6),
        node("Concat", ["one", "two"], ["both"], axis=1),
        node("Reshape", ["both", "by_head"], ["heads"]),
        node("Split", ["heads", "thirds"], ["q", "k", "v"], axis=2),
        node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["v", "kt"], ["vk"]),
        node("MatMul", ["vk", "q"], ["mixed"]),
        node("Reshape", ["mixed", "maps"], ["flat"]),
        node("Conv", ["flat", "project.weight"], ["out"]),
    ]
    constants = {
        "qkv.weight": weights(24, SHAPE[0], 1, 1),
        "groups.weight": weights(24, 4, 1, 1),
        "by_head": np.array([0, 4, 12, PIXELS]),
        "thirds": np.array([4, 4, 4]),
        "maps": np.array([0, 16, SHAPE[1], SHAPE[2]]),
        "project.weight": weights(16, 16, 1, 1),
    }
    return headed(nodes, constants, channels=16)


def one_channel_each() -> ModelProto:
    """Convolutions of one channel that are joined: none of them can lose it."""
    parts = [f"part{at}" for at in range(4)]
    nodes = [node("Conv", ["images", f"{part}.weight"], [part]) for part in parts]
    nodes += [node("Concat", parts, ["joined"], axis=1), node("Conv", ["joined", "wide.weight"], ["out"])]
    kernels = {f"{part}.weight": weights(1, SHAPE[0], 3, 3) for part in parts}
    return headed(nodes, {**kernels, "wide.weight": weights(16, 4, 1, 1)}, channels=16)


def window_of_one() -> ModelProto:
    """Two class tokens that a convolution along their features joins, as in CoaT; its window has one entry."""
    nodes = [node("Conv", ["images", f"{side}.weight"], [f"{side}_maps"]) for side in ("left", "right")]
    nodes += [node("ReduceMean", [f"{side}_maps", "pixels"], [side], keepdims=0) for side in ("left", "right")]
    nodes += [node("Unsqueeze", [side, "middle"], [f"{side}_token"]) for side in ("left", "right")]
    nodes += [
        node("Concat", ["left_token", "right_token"], ["tokens"], axis=1),
        node("Conv", ["tokens", "join.weight"], ["token"]),
        node("Squeeze", ["token", "middle"], ["features"]),
        node("Gemm", ["features", "fc.weight"], ["logits"], transB=1),
    ]
    constants = {f"{side}.weight": weights(16, SHAPE[0], 3, 3) for side in ("left", "right")}
    constants |= {"pixels": np.array([2, 3]), "middle": np.array([1])}
    return model(nodes, {**constants, "join.weight": weights(1, 2, 1), "fc.weight": weights(10, 16)})


def shared_layer() -> ModelProto:
    """One convolution that is computed four times."""
    nodes = [node("Conv", ["images", "stem.weight"], ["x0"])]
    for at in range(4):
        nodes += [
            node("Conv", [f"x{at}", "shared.weight"], [f"y{at}"]),
            node("Relu", [f"y{at}"], [f"r{at}"]),
            node("Add", [f"x{at}", f"r{at}"], [f"x{at + 1}" if at < 3 else "out"]),
        ]
    kernels = {"stem.weight": weights(16, SHAPE[0], 1, 1), "shared.weight": weights(16, 16, 1, 1)}
    return headed(nodes, kernels, channels=16)


def transposed_twin() -> ModelProto:
    """A matrix that is stored once and used both as it is and transposed."""
    nodes = [
        node("Conv", ["images", "stem.weight"], ["maps"]),
        node("ReduceMean", ["maps", "pixels"], ["x"], keepdims=0),
        node("MatMul", ["x", "twin"], ["hidden"]),
        node("Relu", ["hidden"], ["bent"]),
        node("Transpose", ["twin"], ["turned"], perm=[1, 0]),
        node("MatMul", ["bent", "turned"], ["back"]),
        node("Gemm", ["back", "fc.weight"], ["logits"], transB=1),
    ]
    constants = {"stem.weight": weights(16, SHAPE[0], 1, 1), "pixels": np.array([2, 3])}
    return model(nodes, {**constants, "twin": weights(16, 32), "fc.weight": weights(10, 16)})


def low_rank() -> ModelProto:
    """A matrix that the graph computes as the product of two thin ones."""
    nodes = [
        node("Conv", ["images", "stem.weight"], ["maps"]),
        node("ReduceMean", ["maps", "pixels"], ["x"], keepdims=0),
        node("MatMul", ["tall", "wide"], ["whole"]),
        node("MatMul", ["x", "whole"], ["hidden"]),
        node("Relu", ["hidden"], ["bent"]),
        node("Gemm", ["bent", "fc.weight"], ["logits"], transB=1),
    ]
    constants = {"stem.weight": weights(16, SHAPE[0], 1, 1), "pixels": np.array([2, 3])}
    return model(nodes, {**constants, "tall": weights(16, 1), "wide": weights(1, 32), "fc.weight": weights(10, 32)})


def one_logit() -> ModelProto:
    """A binary teacher of one number: the copy's last layer has a second row."""
    made = classifier()
    fc = made.graph.node[-1]
    fc.input[2] = ""
    fc.input[1] = "row"
    kept = [tensor for tensor in made.graph.initializer if not tensor.name.startswith("fc.")]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    added = model([], {"row": weights(1, 8)})
    made.graph.initializer.extend(added.graph.initializer)
    return made


def one_entry_in_the_end() -> ModelProto:
    """An instance normalisation of one pixel: the narrowest copy normalises a single number."""
    nodes = [
        node("Conv", ["images", "stem.weight"], ["maps"]),
        node("InstanceNormalization", ["maps", "scale", "shift"], ["out"]),
    ]
    constants = {"stem.weight": weights(16, *SHAPE), "scale": weights(16), "shift": weights(16)}
    return headed(nodes, constants, channels=16)


def mixed_from_the_left() -> ModelProto:
    """A constant matrix that mixes tokens, and stands on the left of its product."""
    nodes = [
        node("Conv", ["images", "stem.weight"], ["maps"]),
        node("Reshape", ["maps", "by_token"], ["columns"]),
        node("Transpose", ["columns"], ["tokens"], perm=[0, 2, 1]),
        node("MatMul", ["mixing", "tokens"], ["mixed"]),
        node("Relu", ["mixed"], ["bent"]),
        node("ReduceMean", ["bent", "along"], ["features"], keepdims=0),
        node("Gemm", ["features", "fc.weight"], ["logits"], transB=1),
    ]
    constants = {
        "stem.weight": weights(16, SHAPE[0], 1, 1),
        "mixing": weights(12, PIXELS),
        "fc.weight": weights(10, 16),
    }
    return model(nodes, {**constants, "by_token": np.array([0, 16, PIXELS]), "along": np.array([1])})


def neighbours(*, rank: int, pads: Sequence[int] = (1, 1), circular: bool = False) -> ModelProto:
    """Efficient channel attention: the means of the channels, in a row, become gates by a convolution of three."""
    row = [0, 1, 16] if rank == 3 else [0, 1, 1, 16]
    kernel = (1, 1, 3) if rank == 3 else (1, 1, 1, 3)
    sides = list(pads) if rank == 3 else [0, pads[0], 0, pads[1]]
    nodes = [
        node("Conv", ["images", "stem.weight"], ["maps"]),
        node("GlobalAveragePool", ["maps"], ["means"]),
        node("Reshape", ["means", "row"], ["rowed" if circular else "weighed"]),
    ]
    if circular:
        nodes += [
            node("Slice", ["rowed", "last", "end", "along"], ["tail"]),
            node("Concat", ["tail", "rowed"], ["weighed"], axis=2),
        ]
    nodes += [
        node("Conv", ["weighed", "eca.weight"], ["sums"], pads=sides),
        node("Sigmoid", ["sums"], ["gates"]),
        node("Reshape", ["gates", "column"], ["gate"]),
        node("Mul", ["maps", "gate"], ["out"]),
    ]
    constants = {"stem.weight": weights(16, SHAPE[0], 3, 3), "eca.weight": weights(*kernel), "row": np.array(row)}
    constants |= {"last": np.array([14]), "end": np.array([16]), "along": np.array([2])}
    return headed(nodes, {**constants, "column": np.array([0, 16, 1, 1])}, channels=16)


KINDS = {
    "neighbours_in_a_row": neighbours(rank=3),
    "neighbours_in_a_row_of_pixels": neighbours(rank=4),
    "neighbours_on_one_side": neighbours(rank=3, pads=(2, 0)),
    "heads_behind_groups": heads_behind_groups(),
    "one_channel_each": one_channel_each(),
    "window_of_one": window_of_one(),
    "shared_layer": shared_layer(),
    "transposed_twin": transposed_twin(),
    "low_rank": low_rank(),
    "one_logit": one_logit(),
    "mixed_from_the_left": mixed_from_the_left(),
    "one_entry_in_the_end": one_entry_in_the_end(),
}
STORED_ONCE = ("shared_layer", "transposed_twin", "low_rank", "one_logit")  # the file stores less than is computed with


def inspected(made: ModelProto, tmp_path: Path) -> Inspection:
    return parse_file(save(made, tmp_path / "teacher.onnx"), TeacherSpec())[0]


def asked(width: float) -> StudentSpec:
    return StudentSpec(architecture="teacher", width=width)


@pytest.mark.parametrize("name", KINDS)
def test_a_copy_runs_and_has_the_size_that_was_said(name: str, tmp_path: Path) -> None:
    path = save(KINDS[name], tmp_path / "teacher.onnx")
    found, parsed = parse_file(path, TeacherSpec())
    assert parsed is not None
    assert found.narrowing is not None
    teacher = original_of(load_onnx(path, TeacherSpec(), parsed), parsed)
    for width in (1.0, 0.8, 0.5, 0.0):
        copy, said = narrow_to_width(teacher, width), figures_at(found.narrowing, width)
        assert count_parameters(copy) == said.parameters
        assert copy(torch.zeros(3, *SHAPE)).shape == (3, found.num_classes)
    assert said.parameters < found.parameters


@pytest.mark.parametrize("name", STORED_ONCE)
def test_a_copy_that_is_larger_than_the_file_is_refused_with_a_width_that_is_not(name: str, tmp_path: Path) -> None:
    inspection = inspected(KINDS[name], tmp_path)
    with pytest.raises(StudentNotSmaller, match="the graph computes with") as refusal:
        describe_narrowed(inspection, asked(0.95))
    assert refusal.value.pointer == "/student/width"
    widest = float(str(refusal.value.hint).split()[3])
    found = describe_narrowed(inspection, asked(widest))
    assert found is not None
    assert found.figures.parameters < inspection.parameters
    with pytest.raises(StudentNotSmaller):
        describe_narrowed(inspection, asked(widest + 0.06))


def test_what_a_shared_layer_saves_is_counted_against_the_file(tmp_path: Path) -> None:
    inspection = inspected(shared_layer(), tmp_path)
    assert inspection.parameters == 16 * 4 + 16 * 16 + 10 * 16
    sizes = narrowed_sizes(inspection)
    assert sizes is not None
    assert [(size.width, size.parameters) for size in sizes.sizes] == [(0.5, 368), (0.25, 120)]
    assert sizes.sizes[0].removed == round(1 - 368 / 480, 4)


def test_a_window_of_one_entry_keeps_no_channel(tmp_path: Path) -> None:
    found = describe_narrowed(inspected(window_of_one(), tmp_path), asked(0.5))
    assert found is not None
    assert found.figures.parameters == 2 * 8 * SHAPE[0] * 9 + 2 + 10 * 8


@pytest.mark.parametrize("rank", [3, 4])
def test_channels_that_efficient_attention_weighs_are_narrowed(rank: int, tmp_path: Path) -> None:
    found = describe_narrowed(inspected(neighbours(rank=rank), tmp_path), asked(0.5))
    assert found is not None
    assert found.notice is None
    assert found.figures.parameters == 8 * SHAPE[0] * 9 + 3 + 10 * 8


def test_a_ring_of_channels_is_refused_with_the_reason(tmp_path: Path) -> None:
    made = neighbours(rank=3, pads=(0, 0), circular=True)
    with pytest.raises(StudentError, match="a window slides along it") as refusal:
        describe_narrowed(inspected(made, tmp_path), asked(0.5))
    assert refusal.value.pointer == "/student/architecture"


def test_the_outputs_of_a_matrix_on_the_left_are_its_rows(tmp_path: Path) -> None:
    found = describe_narrowed(inspected(mixed_from_the_left(), tmp_path), asked(0.5))
    assert found is not None
    assert dict(found.figures.layers)["the_mixed"] == 6
