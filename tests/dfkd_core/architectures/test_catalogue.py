"""The catalogue: published sizes, refusals by name, options, and no torch."""

import math
import subprocess
import sys
import tracemalloc

import pytest

from dfkd_core.architectures import ARCHITECTURES, catalogue, describe
from dfkd_core.errors import StudentError
from tests.patience import PATIENCE

# (parameters, million multiply-adds) of one 32×32 image, of the papers' own code
PUBLISHED = [
    ("lenet5", 1, 10, 61_706, "0.417"),
    ("lenet5_half", 1, 10, 15_738, "0.134"),
    ("resnet34", 3, 10, 21_282_122, "1159"),
    ("resnet34", 3, 100, 21_328_292, "1159"),
    ("resnet18", 3, 10, 11_173_962, "555"),
    ("resnet18", 3, 100, 11_220_132, "555"),
    ("wrn_40_2", 3, 10, 2_243_546, "328"),
    ("wrn_16_1", 3, 10, 175_066, "26.7"),
    ("wrn_16_2", 3, 10, 691_674, "101"),
    ("wrn_40_1", 3, 10, 563_930, "83"),
]
# Parameters that other implementations of the same forms report: projection shortcuts, batch norm, stride-1 stem.
QUOTED = [
    ("resnet8", 10, 78_042),
    ("resnet20", 100, 278_324),
    ("vgg8", 100, 3_965_028),
    ("vgg11", 10, 9_231_114),
    ("mobilenetv2", 10, 2_236_682),
]


@pytest.mark.parametrize(("name", "channels", "num_classes", "parameters", "million_macs"), PUBLISHED)
def test_sizes_are_the_published_ones(
    name: str, channels: int, num_classes: int, parameters: int, million_macs: str
) -> None:
    network = describe(name, input_shape=(channels, 32, 32), num_classes=num_classes)
    decimals = len(million_macs.partition(".")[2])
    assert network.parameters == parameters
    assert f"{network.macs / 1e6:.{decimals}f}" == million_macs


@pytest.mark.parametrize(("name", "num_classes", "parameters"), QUOTED)
def test_sizes_are_those_of_the_same_forms_elsewhere(name: str, num_classes: int, parameters: int) -> None:
    assert describe(name, input_shape=(3, 32, 32), num_classes=num_classes).parameters == parameters


def test_the_half_lenet_is_lenet_at_half_width() -> None:
    half = describe("lenet5", input_shape=(1, 32, 32), num_classes=10, width=0.5)
    assert half.layers == describe("lenet5_half", input_shape=(1, 32, 32), num_classes=10).layers


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_width_is_monotone_in_parameters_and_work(name: str) -> None:
    sizes = [describe(name, input_shape=(3, 32, 32), num_classes=10, width=width) for width in (0.25, 0.5, 1.0, 2.0)]
    assert sorted(sizes, key=lambda network: (network.parameters, network.macs)) == sizes
    assert len({network.parameters for network in sizes}) == len({network.macs for network in sizes}) == 4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_is_sized_for_channels_and_classes(name: str) -> None:
    network = describe(name, input_shape=(5, 32, 32), num_classes=7)
    assert (network.input_shape, network.num_classes) == ((5, 32, 32), 7)
    assert network.body.output_shape((5, 32, 32)) == (7,)


@pytest.mark.parametrize(
    ("name", "shape"), [("lenet5", (1, 28, 28)), ("lenet5_half", (3, 32, 48)), ("vgg8", (3, 7, 9))]
)
def test_an_architecture_refuses_what_it_cannot_take_by_name(name: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(StudentError, match=f"{name} cannot take .*{shape[1]}×{shape[2]}") as refusal:
        describe(name, input_shape=shape, num_classes=10)
    assert refusal.value.pointer == "/student/architecture"
    assert refusal.value.hint


@pytest.mark.parametrize(
    "name", [name for name, known in ARCHITECTURES.items() if known.family not in ("lenet", "vgg")]
)
def test_residual_networks_take_any_size(name: str) -> None:
    assert describe(name, input_shape=(3, 17, 30), num_classes=10).macs > 0
    assert describe(name, input_shape=(1, 1, 1), num_classes=10).macs > 0


def test_an_unknown_name_lists_the_catalogue() -> None:
    with pytest.raises(StudentError, match="no architecture of this name") as refusal:
        describe("alexnet", input_shape=(3, 32, 32), num_classes=10)
    assert refusal.value.pointer == "/student/architecture"
    assert all(name in (refusal.value.hint or "") for name in ARCHITECTURES)


def test_options_have_defaults_and_are_part_of_the_description() -> None:
    plain = describe("wrn_16_1", input_shape=(3, 32, 32), num_classes=10)
    dropped = describe("wrn_16_1", input_shape=(3, 32, 32), num_classes=10, options={"dropout": 0.3})
    assert plain.options == {"dropout": 0.0}
    assert dropped.options == {"dropout": 0.3}
    assert dropped.parameters == plain.parameters
    assert describe("mobilenetv2", input_shape=(3, 32, 32), num_classes=10).options == {"dropout": 0.2}


@pytest.mark.parametrize(
    ("name", "options", "pointer"),
    [
        ("wrn_16_1", {"dropuot": 0.1}, "/student/options/dropuot"),
        ("wrn_16_1", {"dropout": 1.0}, "/student/options/dropout"),
        ("wrn_16_1", {"dropout": -0.1}, "/student/options/dropout"),
        ("wrn_16_1", {"dropout": math.nan}, "/student/options/dropout"),
        ("wrn_16_1", {"dropout": True}, "/student/options/dropout"),
        ("mobilenetv2", {"dropout": "much"}, "/student/options/dropout"),
        ("resnet18", {"dropout": 0.1}, "/student/options/dropout"),
        ("resnet18", {"a/b~c": 1}, "/student/options/a~1b~0c"),
    ],
)
def test_wrong_options_are_pointed_at(name: str, options: dict[str, object], pointer: str) -> None:
    with pytest.raises(StudentError) as refusal:
        describe(name, input_shape=(3, 32, 32), num_classes=10, options=options)
    assert refusal.value.pointer == pointer


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf, 17.0])
def test_a_width_out_of_range_is_pointed_at(width: float) -> None:
    with pytest.raises(StudentError) as refusal:
        describe("resnet8", input_shape=(3, 32, 32), num_classes=10, width=width)
    assert refusal.value.pointer == "/student/width"


def test_the_catalogue_lists_sizes_and_refusals() -> None:
    entries = {entry["name"]: entry for entry in catalogue((3, 24, 24), 10)}
    assert list(entries) == list(ARCHITECTURES)
    assert "parameters" not in entries["lenet5"]
    assert "24×24" in entries["lenet5"]["refused"]
    assert entries["resnet8"]["parameters"] == 78_042
    assert entries["wrn_40_2"]["options"]["dropout"]["default"] == 0.0


def test_describing_needs_no_torch() -> None:
    code = (
        "import sys; from dfkd_core.architectures import ARCHITECTURES, catalogue, describe\n"
        "assert len(catalogue((3, 32, 32), 10)) == len(ARCHITECTURES) == 14\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'safetensors', 'numpy', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


def test_the_size_of_the_largest_students_is_arithmetic() -> None:
    """Parameter bombs: nothing of their size is allocated while they are measured."""
    tracemalloc.start()
    for name, known in ARCHITECTURES.items():
        greatest = {option: math.nextafter(found.below, found.lowest) for option, found in known.options.items()}
        network = describe(name, input_shape=(3, 32, 32), num_classes=100_000, width=16.0, options=greatest)
        assert network.parameters > 10**6
        assert network.activations > 10**4
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
