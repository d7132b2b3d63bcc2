"""The importer against the nets that were exported: logits, input gradients, statistics, counts."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.teacher_zoo import judge
from dfkd_core.inspection.inspection import inspect_file
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import verify_teacher
from tests.dfkd_core import zoo
from tests.dfkd_core.exports import WAYS, exported

pytestmark = pytest.mark.usefixtures("exporter_table")

EVERY_COMMIT = ("legacy", "legacy preserve")  # the others are run by `make test-slow`
ALSO = {("vit", "dynamo batch 1"), ("multihead_vit", "legacy batch 1"), ("shufflenet", "dynamo unoptimised")}
ALSO |= {("resnet8", "legacy training"), ("mobilenet_v3", "legacy 11"), ("vgg", "legacy batch 3")}
ALSO |= {("swin", "legacy batch 3"), ("spatial_transformer", "legacy batch 3")}
ALSO |= {(name, "dynamo") for name in ("resnet8", "densenet", "convnext", "ghostnet", "alexnet", "adaptive_pool")}
ALSO |= {("vit", "dynamo 23"), ("rmsnorm", "dynamo 23")}
PAIRS = [
    pytest.param(name, way, marks=() if way in EVERY_COMMIT or (name, way) in ALSO else pytest.mark.slow)
    for name in zoo.ZOO
    for way in WAYS
]
REFUSED = {"top_class": "ArgMax — not on the list", "recurrent": "LSTM — not on the list"}
REFUSED_EXPORTS = {  # the whole net is read where another exporter wrote it
    ("alexnet", "legacy"): "If — has a sub-graph",
    ("preprocessed", "dynamo unoptimised"): "mean is defined twice",
}
LEGACY_CANNOT = {"adaptive_pool", "reparametrized", "rmsnorm"}
NO_LINEAR_END = {"nin", "squeezenet"}
OWN_BIAS_UNKNOWN = {"standardized", "reparametrized"}  # weights are computed, so their names tell nothing


@pytest.fixture(autouse=True)
def _quiet_and_single() -> Iterator[None]:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


def refusal_of(name: str, way: str) -> str | None:
    exports = {reason for (net, begin), reason in REFUSED_EXPORTS.items() if net == name and way.startswith(begin)}
    return REFUSED.get(name) or next(iter(exports), None)


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_an_export_is_read_whole_or_refused_with_its_reason(name: str, way: str, shelf: Path) -> None:
    cell = judge(name, way, shelf)
    if cell.verdict == "cannot-export":
        assert name in LEGACY_CANNOT or way not in EVERY_COMMIT, cell
    elif refusal_of(name, way) is not None:
        assert cell.verdict in ("teacher-op-unsupported", "teacher-invalid")
        assert str(refusal_of(name, way)) in cell.because
    else:
        assert cell.verdict == "read", cell
        check_facts(name, way, shelf)


def check_facts(name: str, way: str, shelf: Path) -> None:
    """What the inspection says of an export, and what the teacher offers."""
    net, path = exported(name, way, shelf)
    teacher, found = load_teacher(path, TeacherSpec()), inspect_file(path, TeacherSpec())
    assert found.exporter == ("pytorch-dynamo" if WAYS[way].dynamo else "pytorch-legacy")
    assert (teacher.classifier is None) == (name in NO_LINEAR_END)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    if WAYS[way].keeps_statistics():
        assert found.batchnorm.present == norms
        assert ("batchnorm" in found.offers) == bool(norms)
        assert not found.warnings or name in OWN_BIAS_UNKNOWN
    assert teacher.offers == set(found.offers)


@pytest.mark.parametrize("name", ["lenet", "resnet8", "mobilenet_v2", "densenet", "shufflenet"])
def test_kept_statistics_are_the_nets_own_and_so_are_the_counts(name: str, shelf: Path) -> None:
    net, path = exported(name, "legacy preserve", shelf)
    teacher, found = load_teacher(path, TeacherSpec()), inspect_file(path, TeacherSpec())
    means = [module.running_mean for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    ours = [module.running_mean for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(means) == len(ours)
    assert all(any(torch.equal(mean, own) for own in ours) for mean in means)
    assert found.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert found.macs == counted_macs(net)


def counted_macs(net: nn.Module) -> int:
    """Multiply-adds of convolutions and linear layers for one image, counted while it runs."""
    total = 0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.Linear)
        total += output.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    net(torch.zeros(1, *zoo.SHAPE))
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("way", ["dynamo", "legacy"])
def test_folded_statistics_are_told_with_the_line_that_keeps_them(way: str, shelf: Path, tmp_path: Path) -> None:
    net, path = exported("resnet8", way, shelf)
    found = inspect_file(path, TeacherSpec())
    assert found.batchnorm.status == "folded"
    (warning,) = found.warnings
    assert warning.code == "teacher-batchnorm-folded"
    assert found.re_export is not None
    assert (warning.hint or "").endswith(found.re_export.line)
    line = (warning.hint or "").partition(": ")[2].replace("teacher.onnx", str(tmp_path / "again.onnx"))
    with warnings.catch_warnings(action="ignore"):  # the exporter's remarks about its own age
        exec(line, {"torch": torch, "model": net})
    again = inspect_file(tmp_path / "again.onnx", TeacherSpec())
    assert again.batchnorm.status == "present"
    assert again.batchnorm.present == 9
    assert (again.exporter, again.re_export, again.warnings) == (found.exporter, None, [])


@pytest.mark.parametrize("name", ["lenet", "convnext", "groupnorm"])
def test_nets_without_batchnorm_are_not_warned_about_it(name: str, shelf: Path) -> None:
    _, path = exported(name, "legacy", shelf)
    found = inspect_file(path, TeacherSpec())
    assert found.batchnorm.status == "none"
    assert not found.warnings


def test_half_precision_weights_are_computed_in_single_precision(shelf: Path, tmp_path: Path) -> None:
    net = zoo.build("resnet8")
    path = tmp_path / "half.onnx"
    with warnings.catch_warnings(action="ignore"):  # the exporter's remarks about its own age
        torch.onnx.export(
            net.half(),
            (torch.randn(2, *zoo.SHAPE).half(),),
            path,
            dynamo=False,
            input_names=["images"],
            dynamic_axes={"images": {0: "batch"}},
        )
    teacher = load_teacher(path, TeacherSpec())
    assert "float16-to-float32" in inspect_file(path, TeacherSpec()).normalisations
    assert teacher(torch.randn(2, *zoo.SHAPE)).dtype == torch.float32
    assert verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0)).tolerance == 2e-2
