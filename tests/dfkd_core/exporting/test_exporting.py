"""Teachers from networks and weights: the right part, plain names, the same logits, BatchNorm kept, nothing run."""

import importlib
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from dfkd_core.architectures import describe
from dfkd_core.errors import FormatUnsupported, ParityError, TeacherInvalid, TeacherMismatch
from dfkd_core.exporting.request import ExportRequest
from dfkd_core.exporting.teacher import export_module, export_teacher, export_weights
from dfkd_core.exporting.weights import read_weights
from dfkd_core.inspection.inspection import inspect_file
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.students.build import Network, build_network
from dfkd_core.teachers import load_teacher

pytestmark = pytest.mark.usefixtures("exporter_table")

SHAPE = [3, 16, 16]


@pytest.fixture(scope="module")
def network() -> Network:
    """A net of the catalogue whose statistics are not those of a new one."""
    description = describe("resnet8", input_shape=(3, 16, 16), num_classes=5, width=0.5)
    made = build_network(description, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.train()(torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(1)))
    return made.eval()


@pytest.fixture(scope="module")
def state(network: Network) -> dict[str, Tensor]:
    return network.state_dict()


def named(**more: Any) -> dict[str, Any]:
    return {"architecture": "resnet8", "width": 0.5, "input_shape": SHAPE, **more}


def wrapped(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def saved(content: object, tmp_path: Path) -> Path:
    torch.save(content, tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def same(found: dict[str, Tensor], state: dict[str, Tensor]) -> bool:
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("part", ["", "state_dict", "model", "ema", "whatever"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_weights_are_found_under_plain_names(part: str, prefix: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    inner = wrapped(prefix, state)
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
    path = saved({part: inner, "optimizer": optimizer, "epoch": 3} if part else inner, tmp_path)
    found, told = read_weights(path)
    assert same(found, state)
    assert (f"took the part {part}" in told) == bool(part)
    assert sum(line.startswith("stripped") for line in told) == prefix.count(".")


def test_of_several_parts_one_is_taken_and_the_others_are_told(state: dict[str, Tensor], tmp_path: Path) -> None:
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    path = saved({"ema": {"module": averaged}, "model": state, "epoch": 3}, tmp_path)
    found, told = read_weights(path)
    assert same(found, state)
    assert told == ["took the part model; also there: ema (--pick)"]
    assert same(read_weights(path, pick="ema.module")[0], averaged)
    with pytest.raises(TeacherInvalid, match=r"no part 'emma'.*there: ema, model, epoch"):
        read_weights(path, pick="emma")
    with pytest.raises(TeacherInvalid, match="several parts of the file hold weights: first, second"):
        read_weights(saved({"first": state, "second": state}, tmp_path))


def test_averages_and_compiled_parts_are_unwrapped(state: dict[str, Tensor], tmp_path: Path) -> None:
    averaged = {"n_averaged": torch.tensor(7), **wrapped("module.", state)}
    assert same(read_weights(saved(averaged, tmp_path))[0], state)
    compiled = {name.replace("layer1.", "layer1._orig_mod."): tensor for name, tensor in state.items()}
    assert same(read_weights(saved(compiled, tmp_path))[0], state)


def test_reals_become_float32_and_what_is_no_weight_is_left_out(tmp_path: Path) -> None:
    half = {"w": torch.ones(2, 3).half().t(), "n": torch.tensor(3), "_extra_state": {"made": "by"}}
    found, told = read_weights(saved(half, tmp_path))
    assert (found["w"].dtype, found["n"].dtype, list(found)) == (torch.float32, torch.int64, ["w", "n"])
    assert told == ["left out, as they are no weights: _extra_state", "float16 became float32"]
    with pytest.raises(TeacherInvalid, match="complex, quantised, sparse"):
        read_weights(saved({"w": torch.eye(3).to_sparse()}, tmp_path))


class Canary:
    """Whoever unpickles this leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("way", ["torch", "old torch", "pickle", "network"])
def test_what_only_code_could_open_is_refused_and_no_code_runs(way: str, network: Network, tmp_path: Path) -> None:
    path, trace = tmp_path / "checkpoint.pt", tmp_path / "trace"
    content: object = network if way == "network" else {"model": Canary(trace)}
    if way == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=way != "old torch")
    with pytest.raises(FormatUnsupported) as refused:
        read_weights(path)
    assert not trace.exists()
    assert refused.value.hint is not None
    assert "state_dict" in refused.value.hint


def test_a_program_or_anything_else_is_refused_by_name(tmp_path: Path) -> None:
    scripted = tmp_path / "scripted.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts are going out of use
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), scripted)
    for path, words in ((scripted, "TorchScript"), (Path(__file__), "no checkpoint")):
        with pytest.raises(FormatUnsupported, match=words):
            read_weights(path)


def test_weights_become_a_teacher_with_the_same_logits(
    network: Network, state: dict[str, Tensor], tmp_path: Path
) -> None:
    output = tmp_path / "made" / "teacher.safetensors"
    made = export_weights(saved({"state_dict": wrapped("module.", state)}, tmp_path), output, **named())
    assert (made.path, made.inspection.num_classes, made.inspection.batchnorm.status) == (output, 5, "present")
    teacher = load_teacher(output, made.teacher)
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(teacher.label(images), network(images))
    again = export_weights(output, tmp_path / "again.safetensors", **named())
    assert again.file == made.file


def test_another_architecture_is_refused_with_the_differences_and_the_right_name(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    output = tmp_path / "teacher.safetensors"
    with pytest.raises(TeacherMismatch) as refused:
        export_weights(state, output, **named(architecture="resnet14"))
    assert refused.value.detail.count(" is missing") == 20
    assert refused.value.detail.endswith("more")
    assert refused.value.hint == "These weights are those of resnet8."
    assert list(tmp_path.iterdir()) == []


def test_weights_without_an_architecture_are_those_of_the_one_that_has_them(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    made = export_weights(state, tmp_path / "teacher.safetensors", width=0.5, input_shape=SHAPE)
    assert made.told == ["these are the weights of resnet8"]
    assert (made.teacher.architecture, made.inspection.num_classes) == ("resnet8", 5)
    assert made.depth is not None


def test_a_network_becomes_onnx_with_its_statistics_and_no_trace_of_this_machine(
    network: Network, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    made = export_module(network, tmp_path / "teacher.onnx", input_shape=SHAPE)
    assert made.inspection == inspect_file(tmp_path / "teacher.onnx", TeacherSpec())
    assert (made.inspection.batchnorm.status, made.inspection.batchnorm.present) == ("present", 9)
    assert (made.inspection.batch, made.inspection.input_name, made.inspection.opset) == ("dynamic", "images", 18)
    assert made.max_abs_diff is not None
    assert made.max_abs_diff < 1e-4
    assert made.depth is not None
    assert made.depth.max_abs_diff is not None
    assert same(network.state_dict(), before)
    content = (tmp_path / "teacher.onnx").read_bytes()
    for word in (str(Path(__file__).parent), "site-packages", str(tmp_path)):
        assert word.encode() not in content
    again = export_module(network, tmp_path / "again.onnx", input_shape=SHAPE)
    assert again.file == made.file


class Choosy(nn.Module):
    """The legacy exporter cannot trace this: its forward is exported only symbolically."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if torch.onnx.is_in_onnx_export() and not torch.compiler.is_exporting():
            raise RuntimeError("not by this one")
        return {"logits": self.last(self.norm(self.conv(images)).relu().mean((2, 3)))}


def test_what_the_legacy_exporter_cannot_trace_goes_through_the_newer_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = export_module(Choosy(), tmp_path / "teacher.onnx", input_shape=SHAPE)
    assert made.inspection.batchnorm.status == "present"
    assert any("newer exporter" in line for line in made.told)
    model = onnx.load(tmp_path / "teacher.onnx")
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


class Variant(nn.Module):
    """The names and shapes of a net of the catalogue, and another computation."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def state_dict(self, *_: Any, **__: Any) -> Any:
        return self.network.state_dict()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(-images)  # type: ignore[no-any-return]  # of a module


def test_a_variant_with_the_same_names_is_told_from_the_architecture(network: Network, tmp_path: Path) -> None:
    made = export_module(network, tmp_path / "teacher.safetensors", **named())
    assert (made.inspection.format, made.max_abs_diff) == ("safetensors", 0.0)
    with pytest.raises(ParityError, match="differ by"):
        export_module(Variant(network), tmp_path / "other.safetensors", **named())
    assert not (tmp_path / "other.safetensors").exists()


def test_a_request_runs_the_code_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "somebodys_net.py").write_text(
        "from torch import nn\n"
        "def build(classes):\n"
        "    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()\n"
        "    return nn.Sequential(*layers, nn.Linear(4, classes))\n"
        "nothing = 3\n"
    )
    importlib.invalidate_caches()
    weights = {name: tensor + 1 for name, tensor in _build_theirs().state_dict().items()}
    request = ExportRequest(
        source="somebodys_net:build",
        output=tmp_path / "teacher.onnx",
        weights=saved({"model": weights}, tmp_path),
        arguments={"classes": 6},
        input_shape=SHAPE,
    )
    made = export_teacher(request)
    assert (made.inspection.num_classes, made.inspection.batchnorm.present) == (6, 1)
    assert made.told[:2] == ["ran somebodys_net:build on this machine", "took the part model"]
    with pytest.raises(TeacherMismatch, match=r"4\.weight has shape \[6, 4\], not \[7, 4\]"):
        export_teacher(request.model_copy(update={"arguments": {"classes": 7}}))
    for source, words in (("somebodys_net:absent", "cannot be imported"), ("no_net:build", "cannot be imported")):
        with pytest.raises(TeacherInvalid, match=words):
            export_teacher(request.model_copy(update={"source": source}))


def _build_theirs() -> nn.Module:
    from somebodys_net import build  # type: ignore[import-not-found]  # written by the test

    made: nn.Module = build(6)
    return made
