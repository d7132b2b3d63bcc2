"""safetensors teachers: the header is read by our own rules, the tensors must be exactly the architecture's."""

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from dfkd_core.architectures import describe
from dfkd_core.errors import TeacherError, TeacherInvalid, TeacherMismatch
from dfkd_core.inspection.formats.safetensors_header import MAX_HEADER_BYTES, MAX_TENSORS, read_header
from dfkd_core.inspection.inspection import inspect_file
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.students.build import build_network
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import verify_teacher

SPEC = {"architecture": "resnet8", "width": 0.25, "input": {"shape": [3, 16, 16]}}


def weights(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The state of a small ResNet-8 with some tensors changed, or left out (None)."""
    description = describe("resnet8", input_shape=[3, 16, 16], num_classes=7, width=0.25)
    state = dict(build_network(description, generator=torch.Generator().manual_seed(0)).eval().state_dict())
    state |= {name: value for name, value in changes.items() if value is not None}
    return {name: value for name, value in state.items() if name not in changes or changes[name] is not None}


def spec(**changes: Any) -> TeacherSpec:
    return TeacherSpec.model_validate({**SPEC, **changes})


def written(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    save_file(tensors, path)
    return path


def raw(header: Any, data: bytes, path: Path) -> Path:
    """A file with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape: list[Any], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_named_architecture_comes_back_whole(tmp_path: Path) -> None:
    state = weights()
    path = written(state, tmp_path / "teacher.safetensors")
    teacher = load_teacher(path, spec())
    description = describe("resnet8", input_shape=[3, 16, 16], num_classes=7, width=0.25)
    net = build_network(description, generator=torch.Generator().manual_seed(9))
    net.load_state_dict(state)
    images = torch.randn(3, 3, 16, 16)
    assert torch.equal(teacher(images), net.eval()(images))
    assert teacher.offers == {"batchnorm", "features"}
    assert teacher.forward_with_features(images)[1].shape == (3, 16)
    depth = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    assert depth.max_abs_diff is None
    assert depth.gradient_error < 1e-4


def test_the_inspection_counts_what_the_architecture_counts(tmp_path: Path) -> None:
    found = inspect_file(written(weights(), tmp_path / "teacher.safetensors"), spec())
    description = describe("resnet8", input_shape=[3, 16, 16], num_classes=7, width=0.25)
    assert (found.parameters, found.macs) == (description.parameters, description.macs)
    assert (found.num_classes, found.input_shape) == (7, [3, 16, 16])
    assert found.offers == ["batchnorm", "features"]
    assert found.batchnorm.present == 9


def test_without_an_architecture_the_file_itself_is_inspected(tmp_path: Path) -> None:
    found = inspect_file(written(weights(), tmp_path / "teacher.safetensors"), TeacherSpec())
    assert (found.input_shape, found.num_classes, found.macs) == (None, None, None)
    assert found.batchnorm.status == "present"
    for missing, pointer in ((TeacherSpec(), "/teacher/architecture"), (spec(input=None), "/teacher/input")):
        with pytest.raises(TeacherMismatch) as refusal:
            load_teacher(tmp_path / "teacher.safetensors", missing)
        assert refusal.value.pointer == pointer


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"conv1.weight": None}, "conv1.weight is missing"),
        ({"extra": torch.zeros(2)}, "extra is not part of it"),
        ({"conv1.weight": torch.zeros(4, 3, 5, 5)}, "conv1.weight has shape [4, 3, 5, 5], not [4, 3, 3, 3]"),
    ],
)
def test_tensors_must_match_exactly(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = written(weights(**changes), tmp_path / "teacher.safetensors")
    for read in (load_teacher, inspect_file):
        with pytest.raises(TeacherMismatch) as refusal:
            read(path, spec())
        assert told in refusal.value.detail
        assert refusal.value.pointer == "/teacher/architecture"


def test_a_mismatch_lists_twenty_differences_of_every_kind_in_turns(tmp_path: Path) -> None:
    path = written({f"module.{name}": value for name, value in weights().items()}, tmp_path / "teacher.safetensors")
    with pytest.raises(TeacherMismatch) as refusal:
        load_teacher(path, spec(num_classes=7))
    counts, _, listed = refusal.value.detail.partition("47 missing, 47 not part of it: ")
    assert counts == "the file does not hold this architecture: "
    assert [listed.count(kind) for kind in (" is missing", " is not part of it")] == [10, 10]
    assert listed.endswith(" … and 74 more")
    assert "prefixes" in str(refusal.value.hint)


def test_unknown_names_and_impossible_inputs_point_at_the_teacher(tmp_path: Path) -> None:
    path = written(weights(), tmp_path / "teacher.safetensors")
    for wrong in (spec(architecture="no_such"), spec(architecture="lenet5", width=None)):
        with pytest.raises(TeacherMismatch) as refusal:
            load_teacher(path, wrong)
        assert refusal.value.pointer == "/teacher/architecture"


def test_half_precision_is_raised_and_counters_are_optional(tmp_path: Path) -> None:
    state = {name: value for name, value in weights().items() if "num_batches" not in name}
    path = written({name: value.half() for name, value in state.items()}, tmp_path / "teacher.safetensors")
    teacher = load_teacher(path, spec())
    assert all(parameter.dtype == torch.float32 for parameter in teacher.parameters())
    assert inspect_file(path, spec()).normalisations == ["f16-to-float32"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    broken = weights()["linear.bias"].clone()
    broken[3] = value
    path = written(weights(**{"linear.bias": broken}), tmp_path / "teacher.safetensors")
    for read in (load_teacher, inspect_file):
        with pytest.raises(TeacherInvalid, match=r"linear\.bias holds NaN"):
            read(path, spec())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_other_types_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    path = written(weights(**{"linear.bias": torch.ones(7).to(kind)}), tmp_path / "teacher.safetensors")
    with pytest.raises(TeacherInvalid):
        load_teacher(path, spec())


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"not json", b""),
        (b"\xff\xfe", b""),
        (b"[]", b""),
        (b"[" * 100_000, b""),
        (b"{}", b""),
        (b'{"a": NaN}', b""),
        (
            b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        ({"w": entry([1], 0, 4)}, bytes(5)),
        ({"w": entry([1], 0, 4)}, bytes(3)),
        ({"w": entry([2], 0, 4)}, bytes(4)),
        ({"w": entry([-1], 0, 4)}, bytes(4)),
        ({"w": entry([1.0], 0, 4)}, bytes(4)),
        ({"w": entry([True], 0, 4)}, bytes(4)),
        ({"w": entry([2**40, 2**40], 0, 4)}, bytes(4)),
        ({"w": entry([2**40, 0], 0, 0)}, b""),
        ({"w": entry([1] * 100_000, 0, 4)}, bytes(4)),
        ({"w": entry([1], 4, 0)}, bytes(4)),
        ({"w": entry([1], 0, 4), "v": entry([1], 0, 4)}, bytes(4)),
        ({"w": entry([1], 0, 4), "v": entry([1], 8, 12)}, bytes(12)),
        ({"w": entry([1], 0, 4, "X99")}, bytes(4)),
        ({"../w": entry([1], 0, 4), "": entry([1], 4, 8)}, bytes(8)),
        ({"w\0": entry([1], 0, 4)}, bytes(4)),
        ({"w" * 300: entry([1], 0, 4)}, bytes(4)),
        ({"w": {"dtype": "F32", "shape": [1]}}, bytes(4)),
        ({"w": entry([1], 0, 4), "__metadata__": {"a": 1}}, bytes(4)),
        ({"w": entry([1], 0, 4), "__metadata__": {"a": "x" * 2**21}}, bytes(4)),
    ],
)
def test_irregular_files_are_refused(header: Any, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(TeacherInvalid):
        read_header(raw(header, data, tmp_path / "teacher.safetensors"))


@pytest.mark.parametrize("length", [0, 1, 2**63, MAX_HEADER_BYTES + 1, 10_000])
def test_impossible_header_lengths_are_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" + bytes(100))
    with pytest.raises(TeacherInvalid, match="length"):
        read_header(path)


def test_a_million_tensors_are_refused_at_once(tmp_path: Path) -> None:
    many = {f"t{index}": entry([1], 4 * index, 4 * index + 4) for index in range(MAX_TENSORS + 1)}
    path = raw(many, b"", tmp_path / "many.safetensors")
    begin = time.monotonic()
    with pytest.raises(TeacherInvalid, match="20000 tensors"):
        read_header(path)
    assert time.monotonic() - begin < 60  # not quadratic


@given(st.binary(max_size=300))
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = raw(text, bytes(16), tmp_path_factory.getbasetemp() / "any.safetensors")
    with pytest.raises(TeacherError):
        read_header(path)
