"""ONNX files that are broken, hostile or not classifiers are refused before a library runs them."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from dfkd_core.errors import OperatorUnsupported, TeacherError, TeacherMismatch
from dfkd_core.inspection.inspection import inspect_file
from dfkd_core.onnx_import.reader import read_plan
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import load_teacher
from tests.dfkd_core.onnx_models import classifier, flattened, model, node, refused, save

Change = Callable[[ModelProto], None]


def bomb(depth: int) -> ModelProto:
    """Local functions, each calling the next twice."""
    made = classifier()
    for level in range(depth):
        nodes = [
            helper.make_node(f"f{level + 1}", [name], [out], domain="local") for name, out in (("x", "y"), ("y", "z"))
        ]
        if level == depth - 1:
            nodes = [helper.make_node("Relu", ["x"], ["z"])]
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
        made.functions.append(helper.make_function("local", f"f{level}", ["x"], ["z"], nodes, opsets))
    made.opset_import.append(helper.make_opsetid("local", 1))
    return made


def loop() -> ModelProto:
    body = helper.make_graph([], "body", [], [])
    endless = helper.make_node("Loop", ["trips", "", "images"], ["out"], name="loop", body=body)
    return flattened([endless], {"trips": np.array(2**60, np.int64)})


def external(**entries: str) -> ModelProto:
    made = classifier()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return made


def changed(change: Change) -> ModelProto:
    made = classifier()
    change(made)
    return made


def test_thirty_doubling_functions_are_refused_at_once(tmp_path: Path) -> None:
    made = bomb(30)
    assert len(made.SerializeToString()) < 6000
    assert "functions" in refused(made, tmp_path / "bomb.onnx").detail


@pytest.mark.parametrize("location", ["weights.bin", "../secret", "/etc/passwd", "x/../../y"])
def test_external_data_is_refused(location: str, tmp_path: Path) -> None:
    refusal = refused(external(location=location, offset="-1", length="99999999999"), tmp_path / "model.onnx")
    assert "another file" in refusal.detail
    assert "external_data=False" in str(refusal.hint)
    assert location not in refusal.detail


def test_external_data_in_an_attribute_is_refused(tmp_path: Path) -> None:
    tensor = TensorProto(data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    made = flattened([helper.make_node("Constant", [], ["c"], value=tensor), node("Add", ["images", "c"])])
    assert "another file" in refused(made, tmp_path / "model.onnx").detail


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (loop(), "loop: Loop — has a sub-graph"),
        (
            classifier([helper.make_node("Fancy", ["scores"], ["logits"], name="x", domain="com.acme")]),
            "domain com.acme",
        ),
        (
            classifier([helper.make_node("ArgMax", ["scores"], ["logits"], name="top", axis=1)]),
            "top: ArgMax — not on the",
        ),
        (classifier([node("Round", ["scores"], ["logits"])]), "no gradient passes it"),
        (classifier([node("Cast", ["scores"], ["logits"], to=7)]), "cast to whole numbers"),
        (classifier([node("Sigmoid", ["scores"], ["logits"])]), "Sigmoid — ends the graph"),
        (flattened([node("Conv", ["images", "images"])]), "weights depend on the images"),
        (
            flattened(
                [node("Shape", ["images"], ["s"]), node("Cast", ["s"], ["f"], to=1), node("Mul", ["images", "f"])]
            ),
            "—",
        ),
        (flattened([node("Gelu", ["images"], approximate="__import__('os')")], opset=20), "approximation of this kind"),
        (flattened([node("LeakyRelu", ["images"], alpha=[1, 2])]), "malformed"),
        (flattened([node("MaxPool", ["images"])]), "malformed"),
        (flattened([node("Concat", [], axis=1)]), "it cannot have 0 inputs"),
        (flattened([node("Unsqueeze", ["images", "axes"])], {"axes": np.array([4, 4])}), "an axis that comes twice"),
        (
            flattened([node("Attention", ["images", "images", "images", "", "images", "images"])], opset=23),
            "keys and values of earlier calls",
        ),
        (flattened([node("Einsum", ["images", "images", "images"], equation="abcd,abcd,abcd->abcd")]), "two operands"),
        (flattened([node("Einsum", ["images"], equation="abc->a")]), "its equation does not fit"),
        (flattened([node("LSTM", ["images", "images", "images"], hidden_size=4)]), "LSTM — not on the list"),
        (
            flattened(
                [node("BatchNormalization", ["images", "ones", "ones", "ones", "variance"])],
                {"ones": np.ones(4, np.float32), "variance": np.array([1, -1, 1, 1], np.float32)},
            ),
            "a running variance of it is negative",
        ),
    ],
)
def test_operators_that_cannot_be_taken_are_listed(made: ModelProto, line: str, tmp_path: Path) -> None:
    refusal = refused(made, tmp_path / "model.onnx", kind=OperatorUnsupported)
    assert isinstance(refusal, OperatorUnsupported)
    assert any(line in entry for entry in refusal.nodes)
    assert refusal.hint


def test_every_unknown_operator_is_listed_not_only_the_first(tmp_path: Path) -> None:
    nodes = [node("NonZero", ["images"], ["a"]), node("TopK", ["a", "k"], ["b", "c"]), node("Relu", ["b"])]
    refusal = refused(flattened(nodes, {"k": np.array([1])}), tmp_path / "model.onnx", kind=OperatorUnsupported)
    assert isinstance(refusal, OperatorUnsupported)
    assert [line.split(" — ")[0] for line in refusal.nodes] == ["the_a: NonZero", "the_b: TopK"]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**40),
        lambda m: m.graph.initializer[0].dims.__setitem__(0, -8),
        lambda m: setattr(m.graph.initializer[0], "raw_data", m.graph.initializer[0].raw_data[:-1]),
        lambda m: setattr(m.graph.initializer[0], "raw_data", m.graph.initializer[0].raw_data + b"\0"),
        lambda m: m.graph.initializer[0].float_data.append(1.0),
        lambda m: m.graph.initializer[0].dims.extend([1] * 8),
        lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.STRING),
        lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.COMPLEX64),
        lambda m: setattr(m.graph.initializer[0], "name", "x" * 10_000),
        lambda m: setattr(m.graph.initializer[0], "name", "a\0b"),
        lambda m: setattr(m.graph.initializer[0], "name", "*/_ORT_MEM_ADDR_/*"),
        lambda m: m.graph.initializer.append(m.graph.initializer[0]),
        lambda m: m.graph.node[0].input.__setitem__(0, "nowhere"),
        lambda m: m.graph.node[0].input.__setitem__(0, "p"),  # a cycle
        lambda m: m.graph.node.append(m.graph.node[0]),
        lambda m: m.graph.ClearField("output"),
        lambda m: m.graph.input.append(helper.make_tensor_value_info("other", 1, ["batch", 3])),
        lambda m: m.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1),
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT64),
        lambda m: setattr(m.opset_import[0], "version", 999),
        lambda m: setattr(m.opset_import[0], "version", 0),
        lambda m: m.ClearField("opset_import"),
        lambda m: setattr(m, "ir_version", 999),
        lambda m: m.graph.sparse_initializer.add(),
        lambda m: m.training_info.add(),
        lambda m: m.ClearField("graph"),
    ],
)
def test_broken_models_are_refused(change: Change, tmp_path: Path) -> None:
    refused(changed(change), tmp_path / "model.onnx")


def test_truncated_files_and_files_with_something_behind_are_refused(tmp_path: Path) -> None:
    whole = classifier().SerializeToString()
    for size in (9, len(whole) // 2, len(whole) - 1):
        refused(whole[:size], tmp_path / "short.onnx", kind=TeacherError)
    assert "malformed" in refused(whole + b"PK\x03\x04" + bytes(30), tmp_path / "polyglot.onnx").detail
    assert "malformed" in refused(whole + bytes([0x9B, 0x06]) * 100_000, tmp_path / "groups.onnx").detail


@settings(max_examples=300)
@given(data=st.data())
def test_flipped_bytes_end_in_a_plan_or_a_refusal(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(classifier().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.onnx"
    path.write_bytes(bytes(content))
    with contextlib.suppress(TeacherError):
        assert read_plan(path)[0].num_classes >= 2


def test_outputs_that_are_not_one_row_an_image_are_refused(tmp_path: Path) -> None:
    made = model([node("Reshape", ["images", "s"], ["logits"])], {"s": np.array([1, -1])})
    assert "(N, classes)" in refused(made, tmp_path / "mixed.onnx").detail
    refused(model([node("Relu", ["images"], ["logits"])]), tmp_path / "images.onnx")
    one = model(
        [
            node("ReduceMean", ["images"], ["m"], axes=[1, 2, 3], keepdims=0),
            node("Unsqueeze", ["m"], ["logits"], axes=[1]),
        ],
        opset=11,
    )
    assert inspect_file(save(one, tmp_path / "one.onnx"), TeacherSpec()).num_classes == 2


def test_a_graph_that_ignores_its_images_is_refused(tmp_path: Path) -> None:
    made = model([node("Identity", ["c"], ["logits"])], {"c": np.ones((1, 3), np.float32)})
    assert "does not depend" in refused(made, tmp_path / "constant.onnx").detail


def training(*, mean: float = 0.3, used: bool = False) -> ModelProto:
    """BatchNormalization in training mode, then Dropout."""
    constants = {
        "one": np.ones(4, np.float32),
        "zero": np.zeros(4, np.float32),
        "mean": np.full(4, mean, np.float32),
        "ratio": np.float32(0.5),
        "train": np.array(True),
    }
    nodes = [
        node(
            "BatchNormalization",
            ["images", "one", "zero", "mean", "one"],
            ["b", "new_mean", "new_var"],
            training_mode=1,
        ),
        node("Dropout", ["b", "ratio", "train"], ["d", "mask"]),
        node("Mul", ["d", "new_mean"]) if used else node("Relu", ["d"]),
    ]
    return flattened(nodes, constants)


def test_training_mode_becomes_eval_mode_where_there_are_statistics(tmp_path: Path) -> None:
    path = save(training(), tmp_path / "training.onnx")
    assert inspect_file(path, TeacherSpec()).normalisations == ["batchnorm-to-eval", "dropout-removed"]
    images = torch.randn(3, 4, 4, 6)
    expected = 1.5 * torch.relu((images - 0.3) / (1 + 1e-5) ** 0.5).flatten(1)
    assert torch.allclose(load_teacher(path, TeacherSpec())(images), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "reason"), [({"mean": 0.0}, "no running statistics"), ({"used": True}, "are used")]
)
def test_training_mode_without_statistics_is_refused(options: dict[str, object], reason: str, tmp_path: Path) -> None:
    refusal = refused(training(**options), tmp_path / "training.onnx", kind=OperatorUnsupported)
    assert reason in refusal.detail
    assert "model.eval()" in str(refusal.hint)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_a_softmax_at_the_end_is_cut(op: str, tmp_path: Path) -> None:
    plain = load_teacher(save(classifier(), tmp_path / "plain.onnx"), TeacherSpec())
    end = [node(op, ["scores"], ["chances"], axis=-1), node("Identity", ["chances"], ["logits"])]
    path = save(classifier(end), tmp_path / "softmax.onnx")
    images = torch.randn(2, 4, 4, 6)
    teacher = load_teacher(path, TeacherSpec())
    assert torch.equal(teacher(images), plain(images))
    assert inspect_file(path, TeacherSpec()).normalisations == [f"{'log-' * (op != 'Softmax')}softmax-cut"]
    assert teacher.classifier is not None


def test_identities_and_constants_are_followed(tmp_path: Path) -> None:
    made = classifier()
    weight = next(tensor for tensor in made.graph.initializer if tensor.name == "fc.weight")
    constant = helper.make_node("Constant", [], ["stored"], value=weight)
    made.graph.initializer.remove(weight)
    made.graph.node.insert(0, constant)
    made.graph.node.insert(1, helper.make_node("Identity", ["stored"], ["shared"]))
    made.graph.node.insert(2, helper.make_node("Identity", ["shared"], ["fc.weight"]))
    teacher = load_teacher(save(made, tmp_path / "followed.onnx"), TeacherSpec())
    assert isinstance(teacher.classifier, torch.nn.Linear)
    assert torch.equal(teacher.classifier.weight, torch.tensor(numpy_helper.to_array(constant.attribute[0].t)))


def test_an_open_image_size_is_filled_by_the_spec(tmp_path: Path) -> None:
    path = save(classifier(shape=["batch", 4, "height", "width"]), tmp_path / "open.onnx")
    assert inspect_file(path, TeacherSpec()).input_shape is None
    with pytest.raises(TeacherMismatch) as refusal:
        load_teacher(path, TeacherSpec())
    assert refusal.value.pointer == "/teacher/input"
    given_size = TeacherSpec(input=InputSpec(shape=[4, 9, 7]))
    assert inspect_file(path, given_size).input_shape == [4, 9, 7]
    assert load_teacher(path, given_size)(torch.zeros(2, 4, 9, 7)).shape == (2, 5)


def test_a_spec_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    path = save(classifier(), tmp_path / "teacher.onnx")
    for spec, pointer in (
        (TeacherSpec(input=InputSpec(shape=[3, 4, 6])), "/teacher/input/shape"),
        (TeacherSpec(num_classes=7), "/teacher/num_classes"),
        (TeacherSpec(format="safetensors"), "/teacher/format"),
    ):
        with pytest.raises(TeacherMismatch) as refusal:
            load_teacher(path, spec)
        assert refusal.value.pointer == pointer


def test_a_fixed_batch_is_rewritten(tmp_path: Path) -> None:
    free = load_teacher(save(classifier(), tmp_path / "free.onnx"), TeacherSpec())
    made = classifier(shape=[7, 4, 4, 6])
    flatten = next(entry for entry in made.graph.node if entry.op_type == "Flatten")
    flatten.op_type = "Reshape"
    flatten.input.append("target")
    made.graph.initializer.append(numpy_helper.from_array(np.array([7, -1]), "target"))
    path = save(made, tmp_path / "fixed.onnx")
    images = torch.randn(3, 4, 4, 6)
    assert torch.equal(load_teacher(path, TeacherSpec())(images), free(images))
    found = inspect_file(path, TeacherSpec())
    assert (found.batch, found.normalisations) == ("fixed", ["fixed-batch-rewritten"])


@pytest.mark.parametrize("opset", [11, 18])
def test_a_squeeze_of_all_axes_leaves_that_of_the_only_image(opset: int, tmp_path: Path) -> None:
    made = classifier(shape=[1, 4, 4, 6], opset=opset)
    at = next(at for at, entry in enumerate(made.graph.node) if entry.op_type == "Flatten")
    flatten = made.graph.node[at]
    squeeze = helper.make_node("Squeeze", [flatten.input[0]], ["squeezed"], name="squeeze")
    reshape = helper.make_node("Reshape", ["squeezed", "target"], [flatten.output[0]], name="reshape")
    nodes = [*made.graph.node[:at], squeeze, reshape, *made.graph.node[at + 1 :]]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    made.graph.initializer.append(numpy_helper.from_array(np.array([1, 8]), "target"))
    path = save(made, tmp_path / "one.onnx")
    images = torch.randn(3, 4, 4, 6)
    free = load_teacher(save(classifier(opset=opset), tmp_path / "free.onnx"), TeacherSpec())
    assert torch.equal(load_teacher(path, TeacherSpec())(images), free(images))
    assert inspect_file(path, TeacherSpec()).normalisations == ["fixed-batch-rewritten"]


def test_no_name_of_the_file_reaches_the_generated_code(tmp_path: Path) -> None:
    made = classifier()
    for tensor in made.graph.initializer:
        for entry in made.graph.node:
            for at, name in enumerate(entry.input):
                if name == tensor.name:
                    entry.input[at] = f"evil();{tensor.name}"
        tensor.name = f"evil();{tensor.name}"
    teacher = load_teacher(save(made, tmp_path / "names.onnx"), TeacherSpec())
    assert "evil" not in str(getattr(teacher.network, "code", ""))
    assert "evil" not in str(list(teacher.state_dict()))


def test_attributes_that_hold_graphs_are_seen_whatever_their_type_says(tmp_path: Path) -> None:
    made = classifier()
    attribute = AttributeProto(name="alpha", type=AttributeProto.FLOAT, g=helper.make_graph([], "hidden", [], []))
    made.graph.node[1].attribute.append(attribute)
    refused(made, tmp_path / "hidden.onnx", kind=OperatorUnsupported)


@pytest.mark.parametrize(
    ("made", "hint"),
    [
        (flattened([node("LSTM", ["images", "images", "images"], hidden_size=4)]), "Recurrent layers are not read"),
        (flattened([node("Gemm", ["images", "images"], domain="com.somebody")]), "of other domains"),
        (flattened([node("NonZero", ["images"], ["a"]), node("Relu", ["a"])]), "argmax, top-k"),
    ],
)
def test_the_hint_fits_the_kind_of_node(made: ModelProto, hint: str, tmp_path: Path) -> None:
    refusal = refused(made, tmp_path / "model.onnx", kind=OperatorUnsupported)
    assert hint in str(refusal.hint)
    assert ("nodes of" in refusal.detail) == (len(refusal.nodes) > 1)  # type: ignore[attr-defined]
