"""The exported student: one file, equal bytes for equal runs, nothing of this machine in it, the same decisions."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dfkd_core.architectures import ARCHITECTURES, describe
from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.errors import ExportMismatch, StudentError
from dfkd_core.interface import TeacherInterface, plain_interface
from dfkd_core.networks.interface import to_input
from dfkd_core.networks.teacher import InputSpace
from dfkd_core.output import onnx_export
from dfkd_core.output.onnx_export import PARITY_BATCHES, TOLERANCE, load_student_weights, save_weights
from dfkd_core.output.provenance import file_facts
from dfkd_core.report import Parity
from dfkd_core.students.build import Network, build_network
from tests.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("exporter_table")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def a_description(name: str = "resnet8", *, width: float = 0.25) -> NetworkDescription:
    return describe(name, input_shape=(3, 32, 32), num_classes=10, width=width)


def a_student(description: NetworkDescription) -> Network:
    """A network whose running statistics have seen images, in eval mode."""
    student = build_network(description, generator=torch.Generator().manual_seed(5))
    numbers = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for _ in range(30):
            student(torch.randn(8, *description.input_shape, generator=numbers))
    return student.eval()


def a_space(shape: tuple[int, int, int] = (3, 32, 32), **fields: Any) -> InputSpace:
    return InputSpace(shape, (-1.0,) * shape[0], (1.0,) * shape[0], True, **fields)


def export_onnx(
    student: nn.Module,
    path: Path,
    *,
    shape: tuple[int, int, int] = (3, 32, 32),
    interface: TeacherInterface | None = None,
    opset: int = 18,
) -> None:
    onnx_export.export_onnx(student, path, interface or plain_interface(10), a_space(shape), opset=opset)


def check_parity(
    student: nn.Module,
    path: Path,
    *,
    images_by_batch: list[Tensor],
    shape: tuple[int, int, int] = (3, 32, 32),
    interface: TeacherInterface | None = None,
) -> Parity:
    told = interface or plain_interface(10)
    return onnx_export.check_parity(student, path, told, a_space(shape), images_by_batch=images_by_batch)


def fresh_images(shape: tuple[int, ...] = (3, 32, 32)) -> list[Tensor]:
    numbers = torch.Generator().manual_seed(7)
    return [torch.randn(count, *shape, generator=numbers) for count in PARITY_BATCHES]


@pytest.fixture(scope="module")
def student() -> Network:
    return a_student(a_description())


@pytest.fixture(scope="module")
def exported(student: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "student.onnx"
    export_onnx(student, path)
    return path


def test_one_file_with_a_dynamic_batch_and_named_ends(exported: Path) -> None:
    assert [path.name for path in exported.parent.iterdir()] == ["student.onnx"]
    model = onnx.load(exported, load_external_data=False)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    ends = {}
    for value in (*model.graph.input, *model.graph.output):
        ends[value.name] = [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
    assert ends == {"images": ["batch", 3, 32, 32], "logits": ["batch", 10]}
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert (model.ir_version, model.producer_name) == (8, "dfkd")
    onnx.checker.check_model(model, full_check=True)


def test_nothing_of_the_machine_or_the_exporter_is_left(exported: Path) -> None:
    text = onnx.printer.to_text(onnx.load(exported))
    data = exported.read_bytes()
    assert not re.search(rb"metadata|torch|aten|namespace|/home|/root|/tmp|site-packages|\.py", data)
    assert str(Path(__file__).parents[3]).encode() not in data
    assert "BatchNormalization" not in text


def test_the_file_decides_as_the_student_does(student: Network, exported: Path) -> None:
    parity = check_parity(student, exported, images_by_batch=fresh_images())
    assert parity.batches == [1, 2, 7, 64]
    assert parity.max_scaled_diff <= parity.max_abs_diff < 1e-5
    assert parity.top1_mismatches == 0
    assert parity.tolerance == TOLERANCE


def test_another_student_does_not_pass(exported: Path) -> None:
    other = build_network(a_description(), generator=torch.Generator().manual_seed(99))
    with pytest.raises(ExportMismatch, match="differ by"):
        check_parity(other, exported, images_by_batch=fresh_images())


def test_a_student_of_other_classes_does_not_pass(exported: Path) -> None:
    other = describe("resnet8", input_shape=(3, 32, 32), num_classes=7, width=0.25)
    with pytest.raises(ExportMismatch, match="returns"):
        check_parity(a_student(other), exported, images_by_batch=fresh_images())


def test_not_a_number_does_not_pass(student: Network, exported: Path) -> None:
    with pytest.raises(ExportMismatch):
        check_parity(student, exported, images_by_batch=[torch.full((1, 3, 32, 32), torch.nan)])


def test_parity_without_images_is_no_parity(student: Network, exported: Path) -> None:
    with pytest.raises(ValueError, match="needs images"):
        check_parity(student, exported, images_by_batch=[])


def test_exporting_changes_nothing_about_the_student(tmp_path: Path) -> None:
    student = a_student(a_description("lenet5")).train()
    numbers, before = torch.get_rng_state(), {key: value.clone() for key, value in student.state_dict().items()}
    export_onnx(student, tmp_path / "student.onnx")
    assert student.training
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers)


def test_the_exporter_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        export_onnx(a_student(a_description("lenet5")), tmp_path / "student.onnx")
    assert caplog.records == []


@pytest.mark.parametrize(("opset", "ir_version"), [(19, 9), (20, 9), (21, 10)])
def test_later_operator_sets_are_exported_too(tmp_path: Path, opset: int, ir_version: int) -> None:
    student, path = a_student(a_description("lenet5", width=0.5)), tmp_path / "student.onnx"
    interface = TeacherInterface(input_name="x", output_name="y", output_shape=[10])
    export_onnx(student, path, interface=interface, opset=opset)
    model = onnx.load(path)
    assert (model.opset_import[0].version, model.ir_version) == (opset, ir_version)
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("x", "y")
    assert check_parity(student, path, interface=interface, images_by_batch=fresh_images()).top1_mismatches == 0


TIE = {"shape": (1, 2, 2), "interface": plain_interface(2)}


@pytest.fixture(scope="module")
def tie(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Linear, Path]:
    """A network whose two logits are its bias, exported at (1, 1)."""
    student = nn.Linear(4, 2).requires_grad_(False)
    student.weight.zero_()
    student.bias.fill_(1.0)
    path = tmp_path_factory.mktemp("tie") / "student.onnx"
    export_onnx(nn.Sequential(nn.Flatten(), student), path, **TIE)
    return student, path


@pytest.mark.parametrize(("lead", "passes"), [(0.5e-4, True), (0.95e-4, True), (1.5e-4, False)])
def test_a_tie_within_tolerance_passes_and_is_counted(tie: tuple[nn.Linear, Path], lead: float, passes: bool) -> None:
    student, path = tie
    student.bias.copy_(torch.tensor([1 - lead / 2, 1 + lead / 2]))  # now class 1, in the file class 0
    network, images = nn.Sequential(nn.Flatten(), student), [torch.zeros(3, 1, 2, 2)]
    if passes:
        assert check_parity(network, path, images_by_batch=images, **TIE).top1_mismatches == 3
    else:
        with pytest.raises(ExportMismatch, match="decide differently on 3"):
            check_parity(network, path, images_by_batch=images, **TIE)


def test_differences_are_scaled_by_the_size_of_the_logits(tie: tuple[nn.Linear, Path], tmp_path: Path) -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).requires_grad_(False)
    path, images = tmp_path / "student.onnx", [torch.zeros(1, 1, 2, 2)]
    student[1].bias.copy_(torch.tensor([1000.0, 0.0]))
    export_onnx(student, path, **TIE)
    student[1].bias.copy_(torch.tensor([1000.05, 0.0]))
    parity = check_parity(student, path, images_by_batch=images, **TIE)
    assert parity.max_abs_diff == pytest.approx(0.05, rel=0.01)
    assert parity.max_scaled_diff == pytest.approx(0.05 / 1000, rel=0.01)
    student[1].bias.copy_(torch.tensor([1000.2, 0.0]))
    with pytest.raises(ExportMismatch, match=r"differ by 0\.2"):
        check_parity(student, path, images_by_batch=images, **TIE)


FRESH_PROCESS = """
import sys, torch
from pathlib import Path
from dfkd_core.students.build import build_network
from dfkd_core.output.provenance import file_facts
from dfkd_core.interface import plain_interface
from dfkd_core.networks.teacher import InputSpace
from dfkd_core.output.onnx_export import export_onnx, save_weights
from dfkd_core.architectures import describe
folder = Path(sys.argv[1])
description = describe("resnet8", input_shape=(1, 32, 32), num_classes=10, width=0.25)
student = build_network(description, generator=torch.Generator().manual_seed(11))
space = InputSpace((1, 32, 32), (-1.0,), (1.0,), True)
export_onnx(student, folder / "student.onnx", plain_interface(10), space)
save_weights(student, folder / "student.safetensors", description)
"""


def test_a_fresh_process_writes_the_bytes_of_one_that_has_exported_before(exported: Path, tmp_path: Path) -> None:
    """Python's seed of hashes differs too, so an order that hangs on hashes would show."""
    assert exported.exists()
    fresh, here = tmp_path / "fresh", tmp_path / "here"
    for folder in (fresh, here):
        folder.mkdir()
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, str(fresh)],
        env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    description = describe("resnet8", input_shape=(1, 32, 32), num_classes=10, width=0.25)
    student = build_network(description, generator=torch.Generator().manual_seed(11))
    export_onnx(student, here / "student.onnx", shape=(1, 32, 32))
    save_weights(student, here / "student.safetensors", description)
    first, second = ({path.name: file_facts(path) for path in folder.iterdir()} for folder in (fresh, here))
    assert first == second
    assert sorted(first) == ["student.onnx", "student.safetensors"]


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "mobilenetv2"])
def test_weights_come_back_with_their_architecture(tmp_path: Path, name: str) -> None:
    description = a_description(name)
    student, path = a_student(description), tmp_path / "student.safetensors"
    save_weights(student, path, description)
    again, found = load_student_weights(path)
    assert found == description
    assert not again.training
    with torch.no_grad():
        for images in fresh_images():
            assert torch.equal(again(images), student(images))


def test_weight_files_hold_the_tensors_of_the_description_and_counters(tmp_path: Path) -> None:
    from safetensors import safe_open

    description = a_description("mobilenetv2")
    save_weights(a_student(description), tmp_path / "student.safetensors", description)
    with safe_open(tmp_path / "student.safetensors", framework="pt") as file:
        names = set(file.keys())
    extra = {name for name in names - set(description.tensors()) if not name.endswith("num_batches_tracked")}
    assert set(description.tensors()) <= names
    assert extra == set()


def test_weights_of_another_architecture_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="resnet14"):
        save_weights(a_student(a_description("resnet8")), tmp_path / "student.safetensors", a_description("resnet14"))
    assert list(tmp_path.iterdir()) == []


def test_weights_without_an_architecture_are_not_loaded(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(StudentError, match="which architecture"):
        load_student_weights(tmp_path / "other.safetensors")


def test_weights_that_are_not_those_of_their_architecture_are_not_loaded(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    path, description = tmp_path / "student.safetensors", a_description("lenet5_half")
    save_weights(a_student(description), path, description)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    save_file(weights | {"fc2.bias": torch.zeros(9)}, path, metadata=metadata)
    with pytest.raises(StudentError, match=r"lenet5_half at width 0\.25"):
        load_student_weights(path)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_student_is_exported_as_it_is(tmp_path: Path, name: str, opset: int) -> None:
    description, path = a_description(name), tmp_path / "student.onnx"
    student = a_student(description)
    export_onnx(student, path, opset=opset)
    assert check_parity(student, path, images_by_batch=fresh_images()).top1_mismatches == 0
    held = sum(onnx.numpy_helper.to_array(one).size for one in onnx.load(path).graph.initializer)
    assert held <= description.parameters + 100  # the exporter's own small constants; no dropout counters
    assert onnxruntime.InferenceSession(str(path)).get_outputs()[0].name == "logits"


FORMS = {
    "channels last": {"layout": "NHWC"},
    "grey without a channel axis": {"input_rank": 3},
    "rows of numbers": {"input_rank": 2},
    "rows, channels last": {"input_rank": 2, "layout": "NHWC"},
    "half precision": {"input_type": "float16", "output_type": "float16"},
    "double precision": {"input_type": "float64", "output_type": "float64"},
    "probabilities": {"output_form": "probabilities"},
    "log-probabilities": {"output_form": "log-probabilities", "output_shape": [10, 1, 1]},
    "one logit": {"output_shape": [1]},
    "one probability, squeezed": {"output_shape": [], "output_form": "probabilities"},
    "names of inner values": {"input_name": "conv1.weight", "output_name": "logits", "layout": "NHWC"},
}


@pytest.mark.parametrize("fields", FORMS.values(), ids=FORMS)
def test_the_file_takes_and_returns_what_the_teacher_does(fields: dict[str, Any], tmp_path: Path) -> None:
    interface = TeacherInterface.model_validate({"output_shape": [10], **fields})
    shape = (1 if interface.input_rank == 3 else 3, 32, 32)
    description = describe("lenet5", input_shape=shape, num_classes=interface.num_classes, width=0.5)
    student, path = a_student(description), tmp_path / "student.onnx"
    export_onnx(student, path, shape=shape, interface=interface)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (taken,), (returned,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, returned.name) == (interface.input_name, interface.output_name)
    assert taken.shape == ["batch", *interface.dims_of(shape)]
    images = fresh_images(shape)
    outputs = session.run(None, {taken.name: to_input(images[2], interface, a_space(shape)).numpy()})[0]
    assert outputs.shape == (7, *interface.output_shape)
    assert outputs.dtype == interface.output_type
    parity = check_parity(student, path, shape=shape, interface=interface, images_by_batch=images)
    assert parity.top1_mismatches == 0
    assert not [one.name for one in onnx.load(path).graph.initializer if one.name.startswith("network.")]


def test_whole_pixels_are_scaled_in_the_file(tmp_path: Path) -> None:
    interface = TeacherInterface(input_type="uint8", layout="NHWC", output_shape=[10])
    space = a_space(offset=127.5, scale=127.5, whole=True)
    student, path = a_student(a_description("lenet5")), tmp_path / "student.onnx"
    onnx_export.export_onnx(student, path, interface, space)
    pixels = torch.randint(0, 256, (5, 32, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"images": pixels.numpy()})
    expected = student((pixels.float().permute(0, 3, 1, 2) - 127.5) / 127.5).detach()
    assert torch.allclose(torch.from_numpy(outputs), expected, atol=1e-4)
    images = [torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1]
    assert onnx_export.check_parity(student, path, interface, space, images_by_batch=images).top1_mismatches == 0
