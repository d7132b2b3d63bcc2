"""The importer against the nets that were exported: logits, input gradients, statistics, counts."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.config import TeacherSpec
from dfkd_core.inspection import inspect_file
from dfkd_core.teachers import Teacher, load_teacher
from dfkd_core.teachers.depth import check_depth
from tests.dfkd_core import zoo
from tests.dfkd_core.exports import CANNOT_EXPORT, WAYS, exported

EVERY_COMMIT = ("dynamo", "legacy", "legacy preserve")  # the others are run by `make test-slow`
ALSO = {("vit", "dynamo batch 1"), ("multihead_vit", "legacy batch 1"), ("shufflenet", "dynamo unoptimised")}
ALSO |= {("resnet8", "legacy training"), ("mobilenet_v3", "legacy 11"), ("vgg", "legacy batch 3")}
PAIRS = [
    pytest.param(name, way, marks=() if way in EVERY_COMMIT or (name, way) in ALSO else pytest.mark.slow)
    for name in zoo.ZOO
    for way in WAYS
    if (name, way) not in CANNOT_EXPORT
]


@pytest.fixture(autouse=True)
def _quiet_and_single() -> Iterator[None]:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


def gradient(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of a fixed mixture of them at the images."""
    images = images.clone().requires_grad_(True)
    logits = network(images)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((logits * weights).sum(), images)
    return logits.detach(), found


def compare(net: nn.Module, teacher: Teacher) -> None:
    net.requires_grad_(False)
    for count in (1, 2, 7):
        images = torch.randn(count, *zoo.SHAPE, generator=torch.Generator().manual_seed(count))
        logits, slope = gradient(net, images)
        our_logits, our_slope = gradient(teacher, images)
        assert torch.allclose(our_logits, logits, atol=1e-4)
        assert (our_slope - slope).norm() <= 1e-3 * slope.norm()


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_an_exported_net_comes_back_whole(name: str, way: str, shelf: Path) -> None:
    net, path = exported(name, way, shelf)
    teacher = load_teacher(path, TeacherSpec())
    compare(net, teacher)
    assert check_depth(teacher, path, generator=torch.Generator().manual_seed(0)).outputs == "logits"
    assert teacher.classifier is not None
    found = inspect_file(path, TeacherSpec())
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    if WAYS[way].keeps_statistics():
        assert found.batchnorm.present == norms
        assert found.offers == (["batchnorm"] if norms else []) + ["features"]
        assert not found.warnings
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
    assert warning["code"] == "teacher-batchnorm-folded"
    line = warning["hint"].partition(": ")[2].replace("teacher.onnx", str(tmp_path / "again.onnx"))
    with warnings.catch_warnings(action="ignore"):  # the exporter's remarks about its own age
        exec(line, {"torch": torch, "model": net, "images": torch.randn(2, *zoo.SHAPE)})
    again = inspect_file(tmp_path / "again.onnx", TeacherSpec())
    assert again.batchnorm.status == "present"
    assert again.batchnorm.present == 9
    assert not again.warnings


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
    assert check_depth(teacher, path, generator=torch.Generator().manual_seed(0)).tolerance == 2e-2
