"""What a graph takes: layouts read from the graph or told, never guessed from sizes; whole pixels; images as rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto

from dfkd_core.errors import OperatorUnsupported, TeacherInvalid, TeacherMismatch
from dfkd_core.inspection.inspection import Inspection, inspect_file
from dfkd_core.networks.interface import to_input
from dfkd_core.networks.teacher import Teacher
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import draw_images, verify_teacher
from tests.dfkd_core.interfaces import CLASSES, SIDE, channels_last, classifier, node, pixels, run
from tests.dfkd_core.onnx_models import flattened, refused, save
from tests.dfkd_core.onnx_models import node as model_node


def told(**fields: object) -> TeacherSpec:
    return TeacherSpec(input=InputSpec.model_validate(fields))


def sound(made: ModelProto, path: Path, spec: TeacherSpec | None = None) -> tuple[Inspection, Teacher]:
    """The inspection and the teacher of a file that the first stage of a job accepts."""
    spec = spec or TeacherSpec()
    found, teacher = inspect_file(save(made, path), spec), load_teacher(path, spec)
    verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    images = draw_images(teacher, 5, torch.Generator().manual_seed(1))
    inputs = to_input(images, teacher.interface, teacher.input_space).numpy()
    assert np.allclose(teacher.label(images).numpy(), run(path, inputs), atol=1e-4)
    return found, teacher


def refusal(made: ModelProto, path: Path, spec: TeacherSpec | None = None) -> TeacherMismatch:
    with pytest.raises(TeacherMismatch) as refused:
        inspect_file(save(made, path), spec or TeacherSpec())
    return refused.value


def test_channels_last_are_read_from_the_transposition(tmp_path: Path) -> None:
    found, teacher = sound(channels_last(), tmp_path / "t.onnx")
    assert found.interface is not None
    assert (found.interface.layout, found.input_shape) == ("NHWC", [3, SIDE, SIDE])
    assert "channels-last-to-first" in found.normalisations
    assert not [one for one in teacher.network.graph.nodes if "permute" in str(one.target) or "transpose" in str(one)]


def test_a_grey_image_may_be_turned_by_a_reshape(tmp_path: Path) -> None:
    made = flattened(
        [model_node("Reshape", ["images", "size"], ["turned"]), model_node("Conv", ["turned", "weight"], ["out"])],
        {"size": np.array([-1, 1, 5, 6]), "weight": np.ones((2, 1, 5, 5), np.float32)},
        shape=("batch", 5, 6, 1),
    )
    found = inspect_file(save(made, tmp_path / "t.onnx"), TeacherSpec())
    assert found.interface is not None
    assert (found.interface.layout, found.input_shape) == ("NHWC", [1, 5, 6])


@pytest.mark.parametrize(
    "before",
    [
        [node("Cast", ["x"], "a", to=1), node("Cast", ["a"], "b", to=1)],
        [node("Div", ["x", "most"], "a"), node("Sub", ["a", "mean"], "b")],
        [node("Slice", ["x", "from", "to", "axis"], "b")],
    ],
    ids=["casts", "preprocessing", "reversed colours"],
)
def test_the_transposition_may_come_later(before: Sequence[NodeProto], tmp_path: Path) -> None:
    turn = node("Transpose", ["b"], "images", perm=[0, 3, 1, 2])
    stored = {
        "most": np.float32(2),
        "mean": np.array([0.1, 0.2, 0.3], np.float32),
        "from": np.array([-1]),
        "to": np.array([-4]),
        "axis": np.array([3]),
    }
    if before[0].op_type == "Slice":
        before[0].input.append("step")
        stored["step"] = np.array([-1])
    made = classifier(before=[*before, turn], constants=stored, dims=("N", SIDE, SIDE, 3))
    assert sound(made, tmp_path / "t.onnx")[0].input_shape == [3, SIDE, SIDE]


def test_casts_behind_every_layer_hide_no_linear_layer(tmp_path: Path) -> None:
    """Keras writes a cast behind the product and behind its sum with the offset."""
    after = [
        node("MatMul", ["f", "m"], "product"),
        node("Cast", ["product"], "real", to=TensorProto.FLOAT),
        node("Add", ["real", "offset"], "sum"),
        node("Cast", ["sum"], "y", to=TensorProto.FLOAT),
    ]
    matrix = np.random.default_rng(0).standard_normal((24, 4)).astype(np.float32)
    stored = {"m": matrix, "offset": np.ones(4, np.float32)}
    found, teacher = sound(classifier(after=after, constants=stored), tmp_path / "t.onnx")
    assert found.offers == ["features"]
    assert isinstance(teacher.classifier, torch.nn.Linear)


@pytest.mark.parametrize("dims", [("N", SIDE, SIDE, 4), ("N", 32, 32, 4)])
def test_four_channels_last_are_no_many_channels_first(dims: Sequence[int | str], tmp_path: Path) -> None:
    made = classifier(before=[node("Transpose", ["x"], "images", perm=[0, 3, 1, 2])], dims=dims, channels=4)
    assert sound(made, tmp_path / "t.onnx")[0].input_shape == [4, dims[1], dims[2]]


def test_open_sizes_are_filled_in_any_layout(tmp_path: Path) -> None:
    made = classifier(before=[node("Transpose", ["x"], "images", perm=[0, 3, 1, 2])], dims=("N", "h", "w", 3))
    assert sound(made, tmp_path / "t.onnx", told(shape=[3, 10, 6]))[0].input_shape == [3, 10, 6]
    assert refusal(made, tmp_path / "t.onnx", told(shape=[1, 10, 6])).pointer == "/teacher/input/shape"
    negative = classifier(dims=(-1, 3, -1, -1))
    assert sound(negative, tmp_path / "n.onnx", told(shape=[3, 10, 6]))[0].batch == "dynamic"


def test_a_convolution_over_the_images_tells_channels_first_whatever_the_sizes(tmp_path: Path) -> None:
    made = classifier(dims=("N", 8, 9, 3), channels=8)
    assert sound(made, tmp_path / "t.onnx")[0].input_shape == [8, 9, 3]


def silent(dims: Sequence[int | str]) -> ModelProto:
    """A graph that flattens its images, which tells nothing of their layout."""
    count = int(np.prod([size for size in dims if isinstance(size, int)]))
    matrix = np.random.default_rng(0).standard_normal((count, CLASSES)).astype(np.float32)
    made = classifier(dims=dims)
    del made.graph.node[:]
    made.graph.node.extend([node("Flatten", ["x"], "flat"), node("MatMul", ["flat", "m"], "y")])
    del made.graph.initializer[:]
    made.graph.initializer.append(_tensor(matrix, "m"))
    return made


def _tensor(array: np.ndarray, name: str) -> TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(array, name)


def test_a_silent_graph_with_channel_like_last_axis_asks_for_the_layout(tmp_path: Path) -> None:
    refused = refusal(silent(("N", 8, 8, 3)), tmp_path / "t.onnx")
    assert refused.pointer == "/teacher/input/layout"
    assert "NHWC" in str(refused.hint)
    for layout, shape in (("NHWC", [3, 8, 8]), ("NCHW", [8, 8, 3])):
        found, teacher = sound(silent(("N", 8, 8, 3)), tmp_path / "t.onnx", told(layout=layout))
        assert (found.input_shape, teacher.interface.layout) == (shape, layout)


def test_a_silent_graph_with_channels_first_is_what_it_looks_like(tmp_path: Path) -> None:
    assert sound(silent(("N", 3, 8, 8)), tmp_path / "t.onnx")[0].input_shape == [3, 8, 8]


def test_a_told_layout_that_the_graph_contradicts_is_refused(tmp_path: Path) -> None:
    assert refusal(channels_last(), tmp_path / "a.onnx", told(layout="NCHW")).pointer == "/teacher/input/layout"
    assert refusal(classifier(), tmp_path / "b.onnx", told(layout="NHWC")).pointer == "/teacher/input/layout"


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_whole_pixels_are_cast_inside(layout: str, tmp_path: Path) -> None:
    found, teacher = sound(pixels(layout), tmp_path / "t.onnx")
    assert found.interface is not None
    assert (found.interface.input_type, found.interface.layout) == ("uint8", layout)
    assert (teacher.input_space.low, teacher.input_space.high) == ((-1.0,) * 3, (1.0,) * 3)  # 0 and 255
    assert "input-range-unknown" not in teacher.warnings
    images = draw_images(teacher, 2, torch.Generator().manual_seed(0))
    files = 127.5 + 127.5 * images
    assert torch.allclose(files, files.round(), atol=1e-4)


def test_a_range_of_whole_pixels_can_be_told(tmp_path: Path) -> None:
    save(pixels("NCHW"), tmp_path / "t.onnx")
    space = load_teacher(tmp_path / "t.onnx", told(range=[16.0, 235.0])).input_space
    assert [space.offset + space.scale * value for value in (space.low[0], space.high[0])] == [16.0, 235.0]


def test_computing_with_whole_numbers_is_refused(tmp_path: Path) -> None:
    before = [node("Add", ["x", "x"], "twice"), node("Cast", ["twice"], "images", to=1)]
    save(classifier(before=before, element=TensorProto.UINT8), tmp_path / "t.onnx")
    with pytest.raises(OperatorUnsupported) as refused:
        inspect_file(tmp_path / "t.onnx", TeacherSpec())
    assert "whole numbers" in refused.value.nodes[0]


def test_other_element_types_are_refused(tmp_path: Path) -> None:
    save(classifier(element=TensorProto.STRING), tmp_path / "t.onnx")
    with pytest.raises(TeacherInvalid, match="string"):
        inspect_file(tmp_path / "t.onnx", TeacherSpec())


def rows(size: int | str = 64) -> ModelProto:
    """Images as rows of 64 numbers."""
    return classifier(
        before=[node("Reshape", ["x", "square"], "images")],
        constants={"square": np.array([-1, 1, 8, 8])},
        dims=("N", size),
        channels=1,
    )


def test_rows_of_numbers_are_taken_with_a_shape(tmp_path: Path) -> None:
    for size in (64, "pixels"):
        found, teacher = sound(rows(size), tmp_path / "t.onnx", told(shape=[1, 8, 8]))
        assert (found.input_shape, teacher.interface.input_rank) == ([1, 8, 8], 2)
    refused = refusal(rows(), tmp_path / "t.onnx")
    assert refused.pointer == "/teacher/input/shape"
    assert "[1, 8, 8]" in str(refused.hint)
    assert refusal(rows(), tmp_path / "t.onnx", told(shape=[1, 8, 9])).pointer == "/teacher/input/shape"


def test_grey_images_without_a_channel_axis_are_taken_with_a_shape(tmp_path: Path) -> None:
    made = classifier(
        before=[node("Unsqueeze", ["x", "one"], "images")],
        constants={"one": np.array([1])},
        dims=("N", 8, 8),
        channels=1,
    )
    found, teacher = sound(made, tmp_path / "t.onnx", told(shape=[1, 8, 8]))
    assert (found.input_shape, teacher.interface.input_rank) == ([1, 8, 8], 3)
    assert "[1, 8, 8]" in str(refusal(made, tmp_path / "t.onnx").hint)
    assert refusal(made, tmp_path / "t.onnx", told(shape=[3, 8, 8])).pointer == "/teacher/input/shape"


def test_an_input_without_any_shape_is_taken_with_one(tmp_path: Path) -> None:
    made = classifier(dims=None)
    assert sound(made, tmp_path / "t.onnx", told(shape=[3, 9, 7]))[0].input_shape == [3, 9, 7]
    assert inspect_file(tmp_path / "t.onnx", TeacherSpec()).input_shape is None


@pytest.mark.parametrize(("element", "what"), [(65, "of the unknown type 65"), (0, "no tensor"), (8, "string")])
def test_an_input_of_no_known_type_is_refused_by_name(element: int, what: str, tmp_path: Path) -> None:
    made = flattened([model_node("Relu", ["images"])])
    made.graph.input[0].type.tensor_type.elem_type = element
    found = refused(made, tmp_path / "t.onnx")
    assert f"is {what}, not a batch of images" in found.detail


@pytest.mark.parametrize(
    ("made", "shape", "said", "hint"),
    [
        (classifier(), [SIDE, SIDE, 3], f"[3, {SIDE}, {SIDE}]", f"here [3, {SIDE}, {SIDE}]"),
        (channels_last(), [SIDE, SIDE, 3], f"[3, {SIDE}, {SIDE}]", f"here [3, {SIDE}, {SIDE}]"),
        (classifier(dims=("N", 3, "h", "w")), [SIDE, SIDE, 3], "[3, any height, any width]", f"here [3, {SIDE}"),
        (classifier(dims=("N", 3, SIDE, "w")), [3, 9, 9], f"[3, {SIDE}, any width]", "whatever the file's layout."),
        (classifier(dims=("N", "c", "h", "w")), [SIDE, SIDE, 3], "images of [8, 8, 3]: Conv", "here [3, 8, 8]"),
    ],
)
def test_a_shape_that_does_not_fit_is_answered_with_what_the_file_says_and_with_the_order(
    made: ModelProto, shape: list[int], said: str, hint: str, tmp_path: Path
) -> None:
    found = refusal(made, tmp_path / "t.onnx", told(shape=shape))
    assert said in found.detail
    assert hint in str(found.hint)
    assert found.pointer == "/teacher/input/shape"
