"""What a graph returns: probabilities and single numbers become logits, one of several outputs is named."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper

from dfkd_core.errors import OperatorUnsupported, TeacherInvalid, TeacherMismatch
from dfkd_core.inspection.inspection import Inspection, inspect_file
from dfkd_core.networks.interface import to_output
from dfkd_core.networks.teacher import Teacher
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import draw_images, verify_teacher
from tests.dfkd_core.interfaces import CLASSES, binary, classifier, node, probabilities, run, two_outputs
from tests.dfkd_core.onnx_models import save

PLAIN = classifier()


def sound(made: ModelProto, path: Path, spec: TeacherSpec | None = None) -> tuple[Inspection, Teacher]:
    """The inspection and the teacher of a file that the first stage of a job accepts and reads as ONNX Runtime does."""
    spec = spec or TeacherSpec()
    found, teacher = inspect_file(save(made, path), spec), load_teacher(path, spec)
    verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    images = draw_images(teacher, 6, torch.Generator().manual_seed(1))
    returned = run(path, images.numpy(), teacher.interface.output_name)
    ours = to_output(teacher.label(images), teacher.interface).numpy()
    assert ours.shape == returned.shape
    assert ours.dtype == returned.dtype
    assert np.allclose(ours, returned, atol=2e-3)
    return found, teacher


def tail(
    after: Sequence[NodeProto], constants: Mapping[str, np.ndarray] | None = None, **options: object
) -> ModelProto:
    return classifier(after=after, constants=constants, **options)  # type: ignore[arg-type]


SOFTMAXES = {
    "softmax": [node("Softmax", ["scores"], "y", axis=-1)],
    "cast": [node("Softmax", ["scores"], "p", axis=1), node("Cast", ["p"], "h", to=10), node("Cast", ["h"], "y", to=1)],
    "clip": [node("Softmax", ["scores"], "p", axis=1), node("Clip", ["p", "low", "high"], "y")],
    "exp of log-softmax": [node("LogSoftmax", ["scores"], "l", axis=1), node("Exp", ["l"], "y")],
    "spelled out": [
        node("ReduceMax", ["scores", "axis"], "m"),
        node("Sub", ["scores", "m"], "s"),
        node("Exp", ["s"], "e"),
        node("ReduceSum", ["e", "axis"], "z"),
        node("Div", ["e", "z"], "y"),
    ],
}
NUMBERS = {
    "low": np.float32(1e-7),
    "high": np.float32(1 - 1e-7),
    "axis": np.array([1]),
    "two": np.float32(2),
    "half": np.float32(0.5),
    "zero": np.array([0]),
}


@pytest.mark.parametrize("after", SOFTMAXES.values(), ids=SOFTMAXES)
def test_probabilities_are_taken_and_the_logits_are_what_enters_the_softmax(
    after: Sequence[NodeProto], tmp_path: Path
) -> None:
    found, teacher = sound(tail(after, NUMBERS), tmp_path / "t.onnx")
    assert found.interface is not None
    assert found.interface.output_form == "probabilities"
    assert isinstance(teacher.classifier, torch.nn.Linear)
    plain = load_teacher(save(PLAIN, tmp_path / "plain.onnx"), TeacherSpec())
    images = torch.randn(3, 3, 8, 8)
    assert torch.allclose(teacher.label(images), plain.label(images), atol=1e-4)


def test_log_probabilities_are_taken(tmp_path: Path) -> None:
    for name, after in {
        "a": [node("LogSoftmax", ["scores"], "y", axis=1)],
        "b": [node("Softmax", ["scores"], "p", axis=1), node("Log", ["p"], "y")],
    }.items():
        found, teacher = sound(tail(after), tmp_path / f"{name}.onnx")
        assert found.interface is not None
        assert found.interface.output_form == "log-probabilities"
        assert teacher.classifier is not None


def test_a_temperature_goes_into_the_linear_layer(tmp_path: Path) -> None:
    found, teacher = sound(probabilities(), tmp_path / "t.onnx")
    assert {"softmax-cut", "temperature-folded"} <= set(found.normalisations)
    assert found.offers == ["features"]
    assert isinstance(teacher.classifier, torch.nn.Linear)
    weights = next(tensor for tensor in PLAIN.graph.initializer if tensor.name == "w3")
    assert torch.allclose(teacher.classifier.weight, torch.tensor(_array(weights)) / 2)


def test_a_factor_behind_a_product_and_its_offset_goes_into_both(tmp_path: Path) -> None:
    after = [
        node("MatMul", ["f", "m"], "product"),
        node("Add", ["product", "offset"], "sum"),
        node("Mul", ["two", "sum"], "y"),
    ]
    rng = np.random.default_rng(1)
    stored = {
        "m": rng.standard_normal((24, CLASSES)).astype(np.float32),
        "offset": rng.standard_normal(CLASSES).astype(np.float32),
    }
    found, teacher = sound(tail(after, {**NUMBERS, **stored}), tmp_path / "t.onnx")
    assert "temperature-folded" in found.normalisations
    assert isinstance(teacher.classifier, torch.nn.Linear)
    assert torch.allclose(teacher.classifier.bias, torch.tensor(2 * stored["offset"]))


def _array(tensor: TensorProto) -> np.ndarray:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


SOFT = [node("Softmax", ["scores"], "p", axis=1), node("Softmax", ["other"], "q", axis=1)]
MEANS = {
    "sum and quotient": [node("Add", ["p", "q"], "s"), node("Div", ["s", "two"], "y")],
    "mean": [node("Mean", ["p", "q"], "y")],
    "weighted": [node("Mul", ["p", "half"], "a"), node("Mul", ["half", "q"], "b"), node("Add", ["a", "b"], "y")],
    "stacked": [
        node("Unsqueeze", ["p", "zero"], "a"),
        node("Unsqueeze", ["q", "zero"], "b"),
        node("Concat", ["a", "b"], "s", axis=0),
        node("ReduceMean", ["s", "zero"], "y", keepdims=0),
    ],
}


@pytest.mark.parametrize("after", MEANS.values(), ids=MEANS)
def test_a_mean_of_probabilities_becomes_its_logarithm(after: Sequence[NodeProto], tmp_path: Path) -> None:
    second = node("Gemm", ["f", "w4"], "other", transB=1)
    stored = {**NUMBERS, "w4": np.random.default_rng(9).standard_normal((CLASSES, 24)).astype(np.float32)}
    found, teacher = sound(tail([second, *SOFT, *after], stored), tmp_path / "t.onnx")
    assert found.interface is not None
    assert found.interface.output_form == "probabilities"
    assert "log-of-probabilities" in found.normalisations
    assert found.offers == []
    logits = teacher.label(torch.randn(4, 3, 8, 8))
    assert torch.allclose(logits.exp().sum(1), torch.ones(4), atol=1e-4)


@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_one_number_tells_two_classes_apart(sigmoid: bool, squeezed: bool, tmp_path: Path) -> None:
    found, teacher = sound(binary(sigmoid=sigmoid, squeezed=squeezed), tmp_path / "t.onnx")
    assert found.interface is not None
    assert (found.num_classes, found.interface.output_shape) == (2, [] if squeezed else [1])
    assert found.interface.output_form == ("probabilities" if sigmoid else "logits")
    assert ("teacher-one-number" in [one.code for one in found.warnings]) == (not sigmoid)
    assert isinstance(teacher.classifier, torch.nn.Linear)
    assert teacher.classifier.out_features == 2
    assert found.parameters == 12 * 28 + 24 * 12 * 9 + 25  # those of the file
    assert torch.equal(teacher.label(torch.randn(4, 3, 8, 8))[:, 0], torch.zeros(4))


ONE_MINUS = {
    "subtracted": ["Sub one p y"],
    "negated and added": ["Neg p n", "Add n one y"],
    "added to the negated": ["Neg p n", "Add one n y"],
    "multiplied and added": ["Mul p minus n", "Add n one y"],
    "negated difference": ["Sub p one n", "Neg n y"],
    "clipped before": ["Clip p low high c", "Sub one c y"],
    "clipped and cast after": ["Sub one p c", "Clip c low high h", "Cast h y"],
    "clipped while negative": ["Neg p n", "Clip n under zero_ c", "Add c one y"],
    "reshaped": ["Squeeze p axis s", "Sub one s d", "Unsqueeze d axis y"],
}
ONE = {
    **NUMBERS,
    "one": np.float32(1),
    "minus": np.array([-1], np.float32),
    "under": np.float32(-1),
    "zero_": np.float32(0),
}


def spelled(lines: Sequence[str]) -> list[NodeProto]:
    """Nodes of lines such as "Sub one p y": an operator, its inputs, its output."""
    found = []
    for line in lines:
        op, *inputs, output = line.split()
        found.append(node(op, inputs, output, **({"to": TensorProto.FLOAT} if op == "Cast" else {})))
    return found


@pytest.mark.parametrize("lines", ONE_MINUS.values(), ids=ONE_MINUS)
def test_one_minus_a_sigmoid_is_the_probability_of_the_second_class(lines: Sequence[str], tmp_path: Path) -> None:
    made = tail([node("Sigmoid", ["scores"], "p"), *spelled(lines)], ONE, classes=1, outputs={"y": ("N", 1)})
    found, teacher = sound(made, tmp_path / "t.onnx")
    assert found.interface is not None
    assert (found.num_classes, found.interface.output_form) == (2, "probabilities")
    assert {"sigmoid-cut", "one-number-to-two-logits"} <= set(found.normalisations)
    assert "teacher-one-number" not in [one.code for one in found.warnings]
    assert isinstance(teacher.classifier, torch.nn.Linear)
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    logits = teacher.label(images)
    plain = load_teacher(save(binary(sigmoid=True, squeezed=False), tmp_path / "plain.onnx"), TeacherSpec())
    assert torch.allclose(logits, plain.label(images).flip(1), atol=1e-4)
    assert torch.equal(logits[:, 1], torch.zeros(16))


@pytest.mark.parametrize("lines", [["Sub one p y"], ["Neg p n", "Add n one y"], ["Identity p y"]])
@pytest.mark.parametrize("taken", ["Gather", "Slice", "Split"])
@pytest.mark.parametrize("at", [0, 1])
def test_one_of_two_softmax_outputs_is_a_probability(at: int, taken: str, lines: Sequence[str], tmp_path: Path) -> None:
    stored = {**ONE, "from": np.array([at]), "to": np.array([at + 1]), "sizes": np.array([1, 1])}
    take = {
        "Gather": node("Gather", ["both", "from"], "p", axis=1),
        "Slice": node("Slice", ["both", "from", "to", "axis"], "p"),
        "Split": helper.make_node("Split", ["both", "sizes"], ["q", "p"] if at else ["p", "q"], axis=1),
    }[taken]
    after = [node("Softmax", ["scores"], "both", axis=1), take, *spelled(lines)]
    found, _ = sound(tail(after, stored, classes=2, outputs={"y": ("N", 1)}), tmp_path / "t.onnx")
    assert found.interface is not None
    assert (found.interface.output_form, found.interface.output_shape) == ("probabilities", [1])
    assert "softmax-cut" in found.normalisations


@pytest.mark.parametrize(
    "lines",
    [
        ["Sigmoid scores p", "Sigmoid other q", "Mean p q m", "Sub one m y"],
        ["Sigmoid scores p", "Sigmoid other q", "Add p q s", "Mul half s y"],
        ["Tanh other p", "Mul p half h", "Add h half y"],
        ["HardSigmoid other p", "Sub one p y"],
    ],
)
def test_another_number_from_0_to_1_is_a_probability(lines: Sequence[str], tmp_path: Path) -> None:
    other = node("Gemm", ["f", "w4"], "other", transB=1)
    stored = {**ONE, "w4": np.random.default_rng(9).standard_normal((1, 24)).astype(np.float32) * 0.3}
    made = tail([other, *spelled(lines)], stored, classes=1, outputs={"y": ("N", 1)})
    found, teacher = sound(made, tmp_path / "t.onnx")
    assert found.interface is not None
    assert (found.num_classes, found.interface.output_form) == (2, "probabilities")
    assert "log-of-probabilities" in found.normalisations
    logits = teacher.label(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(logits.exp().sum(1), torch.ones(4), atol=1e-4)


@pytest.mark.parametrize(
    "lines",
    [
        ["Sub one small y"],
        ["Sigmoid small p", "Sub two p y"],
        ["Sigmoid small p", "Mul p half y"],
        ["Sigmoid small p", "Sub p one y"],
        ["Sigmoid small p", "Clip p half one c", "Sub one c y"],
        ["Tanh small y"],
    ],
)
def test_a_number_that_is_no_probability_is_a_logit(lines: Sequence[str], tmp_path: Path) -> None:
    stored = {**ONE, "tenth": np.float32(0.1)}
    after = spelled(["Mul scores tenth small", *lines])
    found, _ = sound(tail(after, stored, classes=1, outputs={"y": ("N", 1)}), tmp_path / "t.onnx")
    assert found.interface is not None
    assert found.interface.output_form == "logits"
    assert "teacher-one-number" in [one.code for one in found.warnings]


@pytest.mark.parametrize(
    ("after", "stored"),
    [
        ([node("MatMul", ["f", "m"], "p"), node("Add", ["p", "one"], "y")], {"one": np.ones(1, np.float32)}),
        ([node("MatMul", ["f", "m"], "y")], {}),
        ([node("ReduceMean", ["scores", "axis"], "y")], {}),
    ],
)
def test_one_number_may_come_from_any_layer(
    after: Sequence[NodeProto], stored: dict[str, np.ndarray], tmp_path: Path
) -> None:
    matrix = np.random.default_rng(0).standard_normal((24, 1)).astype(np.float32)
    made = tail(after, {"m": matrix, "axis": np.array([1]), **stored}, outputs={"y": ("N", 1)})
    assert sound(made, tmp_path / "t.onnx")[0].num_classes == 2


def test_axes_of_size_one_around_the_classes_stay_in_the_output(tmp_path: Path) -> None:
    for axes, shape in (([2, 3], [CLASSES, 1, 1]), ([1, 2], [1, 1, CLASSES])):
        after = [node("Unsqueeze", ["scores", "axes"], "y")]
        made = tail(after, {"axes": np.array(axes)}, outputs={"y": ("N", *shape)})
        found, teacher = sound(made, tmp_path / "t.onnx")
        assert found.interface is not None
        assert (found.interface.output_shape, found.num_classes) == (shape, CLASSES)
        assert teacher.classifier is not None


def test_maps_are_no_classes(tmp_path: Path) -> None:
    save(tail([node("Identity", ["c2"], "y")], outputs={"y": ("N", 24, 4, 4)}), tmp_path / "t.onnx")
    with pytest.raises(TeacherInvalid, match=r"not \(N, classes\)"):
        inspect_file(tmp_path / "t.onnx", TeacherSpec())


def test_one_of_several_outputs_must_be_named(tmp_path: Path) -> None:
    save(two_outputs(), tmp_path / "t.onnx")
    for spec in (TeacherSpec(), TeacherSpec(output="scores")):
        with pytest.raises(TeacherMismatch, match=r"logits \(N, 4\), features \(N, 24\)") as refused:
            inspect_file(tmp_path / "t.onnx", spec)
        assert refused.value.pointer == "/teacher/output"
    found, teacher = sound(two_outputs(), tmp_path / "t.onnx", TeacherSpec(output="logits"))
    assert (found.output_name, found.num_classes, teacher.interface.output_name) == ("logits", CLASSES, "logits")


def test_an_output_from_which_another_is_computed_is_warned_about(tmp_path: Path) -> None:
    save(two_outputs(), tmp_path / "t.onnx")
    (notice,) = [
        each
        for each in inspect_file(tmp_path / "t.onnx", TeacherSpec(output="features")).warnings
        if each.code == "teacher-output-not-last"
    ]
    assert "the output logits from the output features" in notice.detail
    assert "24 classes" in notice.detail
    probabilities = [node("Identity", ["scores"], "logits"), node("Softmax", ["logits"], "p", axis=1)]
    both = tail(probabilities, outputs={"logits": ("N", CLASSES), "p": ("N", CLASSES)})
    for made in (two_outputs(), both):  # the last output, and one that no weights separate from the last
        found = sound(made, tmp_path / "t.onnx", TeacherSpec(output="logits"))[0]
        assert "teacher-output-not-last" not in [each.code for each in found.warnings]


def test_other_outputs_may_hold_what_no_teacher_may(tmp_path: Path) -> None:
    after = [node("Identity", ["scores"], "logits"), node("ArgMax", ["scores"], "top", axis=1)]
    made = tail(after, outputs={"logits": ("N", CLASSES), "top": ("N", 1)})
    made.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    assert sound(made, tmp_path / "t.onnx", TeacherSpec(output="logits"))[0].num_classes == CLASSES


def test_independent_probabilities_are_refused_without_a_way_around(tmp_path: Path) -> None:
    save(tail([node("Sigmoid", ["scores"], "y")]), tmp_path / "t.onnx")
    with pytest.raises(OperatorUnsupported, match="multi-label") as refused:
        inspect_file(tmp_path / "t.onnx", TeacherSpec())
    assert "sigmoid" not in str(refused.value.hint).lower()


def test_a_softmax_over_one_number_is_refused(tmp_path: Path) -> None:
    save(classifier(after=[node("Softmax", ["scores"], "y", axis=1)], classes=1), tmp_path / "t.onnx")
    with pytest.raises(TeacherInvalid, match="one number"):
        inspect_file(tmp_path / "t.onnx", TeacherSpec())


@pytest.mark.parametrize(
    "after",
    [
        [node("LpNormalization", ["scores"], "y", axis=1)],
        [node("ReduceL2", ["scores", "axis"], "n"), node("Clip", ["n", "low"], "c"), node("Div", ["scores", "c"], "y")],
        [
            node("Mul", ["scores", "scores"], "sq"),
            node("ReduceSum", ["sq", "axis"], "n"),
            node("Sqrt", ["n"], "r"),
            node("Div", ["scores", "r"], "y"),
        ],
    ],
)
def test_outputs_of_length_one_are_warned_about(after: Sequence[NodeProto], tmp_path: Path) -> None:
    found, _ = sound(tail(after, NUMBERS), tmp_path / "t.onnx")
    assert "teacher-looks-like-embedding" in [warning.code for warning in found.warnings]


def test_a_classifier_is_not_warned_about(tmp_path: Path) -> None:
    assert "teacher-looks-like-embedding" not in [one.code for one in sound(PLAIN, tmp_path / "t.onnx")[0].warnings]
