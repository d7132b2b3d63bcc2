"""Precision and compilation: which results may differ, and which must not."""

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from dfkd_core.errors import CheckpointMismatch, CompileUnavailable, Stopped
from dfkd_core.loop.checkpoint import (
    HEADER,
    CheckpointWriter,
    precision_of,
    read_checkpoint,
    write_checkpoint,
    written,
)
from dfkd_core.loop.distill import Distilled
from dfkd_core.loop.round import train_round
from dfkd_core.loop.state import build_run
from dfkd_core.networks import precision as engines
from dfkd_core.networks.batchnorm import BatchNormStatistics
from dfkd_core.networks.hooks import evaluating
from dfkd_core.networks.precision import Engine, check_compiler, engine_running, is_watched
from dfkd_core.spec.compute import Compute
from tests.dfkd_core.loop.test_distill import content, run, stopping_at
from tests.dfkd_core.tiny import SHAPE, tiny_config, tiny_network, tiny_teacher

BF16 = Engine(Compute(precision="bf16"))
COMPILED = Engine(Compute(compile=True))
CPU = torch.device("cpu")
SETTINGS = [{"precision": "bf16"}, {"compile": True}, {"precision": "bf16", "compile": True}]


def images(count: int = 12) -> Tensor:
    return torch.randn((count, *SHAPE), generator=torch.Generator().manual_seed(1))


def outputs_of(layer: nn.Module, into: list[torch.dtype]) -> None:
    layer.register_forward_hook(lambda _module, _inputs, output: into.append(output.dtype))


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs are captured and differentiated as ever, but no kernels are written: that takes no compiler."""
    monkeypatch.setattr(engines, "BACKEND", "aot_eager")
    yield
    torch.compiler.reset()


@functools.cache
def why_nothing_compiles() -> str:
    try:
        check_compiler(CPU)
    except CompileUnavailable as error:
        return error.detail
    return ""


def test_the_plain_engine_changes_nothing() -> None:
    network = tiny_network()
    assert Engine().plain
    assert Engine().wrap(network) is network
    assert torch.equal(Engine()(network, images()), network(images()))


@pytest.mark.parametrize(("engine", "inside"), [(Engine(), torch.float32), (BF16, torch.bfloat16)])
def test_layers_compute_in_the_precision_asked_for_and_the_answer_is_fp32(engine: Engine, inside: torch.dtype) -> None:
    network, seen = tiny_network(batchnorm=True), list[torch.dtype]()
    for layer in (network[0], network[-1]):
        outputs_of(layer, seen)
    logits = engine.wrap(network)(images())
    logits.sum().backward()
    assert seen == [inside, inside]
    assert logits.dtype == torch.float32
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert all(weight.grad is not None and weight.grad.dtype == torch.float32 for weight in network.parameters())


def test_kernels_lie_channels_last_whatever_else_the_network_holds() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    network.register_parameter("capsules", nn.Parameter(torch.randn(1, 2, 3, 4, 5)))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    Engine(Compute()).to_channels_last(network, torch.device("cpu"))
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_view_is_the_same_network() -> None:
    network = tiny_network()
    view = BF16.wrap(network)
    with evaluating(view):
        assert not network.training
    assert network.training
    assert [id(parameter) for parameter in view.parameters()] == [id(parameter) for parameter in network.parameters()]


def test_what_is_read_of_a_narrow_forward_is_fp32() -> None:
    teacher = tiny_teacher(batchnorm=True).with_precision(BF16)
    with BatchNormStatistics(teacher.network) as statistics:
        logits, features = teacher.forward_with_features(images())
    assert {logits.dtype, features.dtype, teacher.label(images()).dtype} == {torch.float32}
    teacher(images())
    assert statistics.moments == []
    with BatchNormStatistics(teacher.network) as statistics:
        teacher(images())
        assert {tensor.dtype for moments in statistics.moments for tensor in moments} == {torch.float32}


def test_every_network_of_a_round_computes_in_bf16() -> None:
    teacher, student = tiny_teacher(batchnorm=True), tiny_network()
    state = build_run(teacher, student, tiny_config(memory="vae", compute={"precision": "bf16"}))
    generator = state.images.synthesizer.generator
    assert generator is not None
    convolutions = {"student": student[0], "generator": generator.get_submodule("conv1")}
    convolutions["encoder"] = state.memory.encoder.conv1  # type: ignore[attr-defined]
    convolutions["decoder"] = state.memory.decoder.conv1  # type: ignore[attr-defined]
    seen: dict[str, list[torch.dtype]] = {name: [] for name in convolutions}
    for name, layer in convolutions.items():
        outputs_of(layer, seen[name])
    for _ in range(4):
        train_round(state)
    assert {name: set(dtypes) for name, dtypes in seen.items()} == {name: {torch.bfloat16} for name in convolutions}


def test_the_held_out_are_labelled_in_fp32() -> None:
    teacher = tiny_teacher()
    audit = run(tiny_config(compute={"precision": "bf16"}), teacher=teacher).audit.batch()
    exact, narrow = teacher.label(audit.images), teacher.with_precision(BF16).label(audit.images)
    kept = audit.teacher_logits  # in half precision, of images before their encoding
    assert (kept - exact).abs().max() < (kept - narrow).abs().max()


@pytest.mark.parametrize("memory", ["ema", "vae"])
def test_a_bf16_run_is_repeatable_resumable_and_leaves_fp32(tmp_path: Path, memory: str) -> None:
    def go(**more: Any) -> Distilled:
        config = tiny_config(memory=memory, compute={"precision": "bf16"})
        return run(config, teacher=tiny_teacher(batchnorm=True), student=tiny_network(batchnorm=True), **more)

    whole = go()
    with pytest.raises(Stopped):
        go(on_step=stopping_at(5), checkpoints=CheckpointWriter(tmp_path, every_seconds=3600))
    resumed = go(resume_from=written(tmp_path)[-1])
    assert content(resumed) == content(whole) == content(go())
    assert resumed.curve == whole.curve
    floats = {tensor.dtype for tensor in whole.student.state_dict().values() if tensor.is_floating_point()}
    assert floats == {torch.float32}


def test_precision_belongs_to_a_checkpoint(tmp_path: Path) -> None:
    config = tiny_config(budget={"steps": 4})
    run(config, checkpoints=CheckpointWriter(tmp_path, every_seconds=3600))
    with pytest.raises(CheckpointMismatch, match="config"):
        run(tiny_config(budget={"steps": 4}, compute={"precision": "bf16"}), resume_from=written(tmp_path)[-1])


def test_a_checkpoint_tells_its_precision(tmp_path: Path) -> None:
    for asked, precision in {"auto": "fp32", "fp32": "fp32", "bf16": "bf16"}.items():
        config = tiny_config(budget={"steps": 4}, compute={"precision": asked})
        run(config, checkpoints=CheckpointWriter(tmp_path / asked, every_seconds=3600))
        assert precision_of(written(tmp_path / asked)[-1]) == precision


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_checkpoint_of_a_version_that_did_not_tell_it_fits_the_same_config(tmp_path: Path, precision: str) -> None:
    config = tiny_config(budget={"steps": 4}, compute={"precision": precision})
    whole = run(config, checkpoints=CheckpointWriter(tmp_path, every_seconds=3600))
    path, earlier = written(tmp_path)[-1], tmp_path / "earlier.safetensors"
    with safe_open(path, framework="pt") as file:
        fingerprint = json.loads(file.metadata()[HEADER])["fingerprint"]
    del fingerprint["precision"]
    write_checkpoint(earlier, read_checkpoint(path, fingerprint={}), fingerprint=fingerprint)
    assert precision_of(earlier) == "fp32"
    assert content(run(config, resume_from=earlier)) == content(whole)
    other = "fp32" if precision == "bf16" else "bf16"
    with pytest.raises(CheckpointMismatch, match="different config"):
        run(tiny_config(budget={"steps": 4}, compute={"precision": other}), resume_from=earlier)


def test_a_damaged_checkpoint_tells_no_precision(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-000001.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointMismatch, match="cannot be read"):
        precision_of(path)


@pytest.mark.parametrize("method", ["cmi", "fast", "nayer"])
def test_redrawn_generators_compute_in_bf16(method: str) -> None:
    sizes = {"latent_dim": 6, "width": 4, "batch_size": 8, "steps": 2, "warmup_rounds": 1}
    config = tiny_config(method=method, compute={"precision": "bf16"}, method_options=sizes, budget={"steps": 4})
    assert run(config, teacher=tiny_teacher(batchnorm=True)).student_updates == 4


@pytest.mark.usefixtures("traced_only")
def test_compiled_networks_say_the_same_and_stay_what_they_are() -> None:
    network = tiny_network(batchnorm=True)
    names, twin = list(network.state_dict()), copy.deepcopy(network)
    with engine_running(COMPILED, device=CPU):
        for count in (12, 7, 30):
            batch = images(count)
            torch.testing.assert_close(COMPILED(network, batch), twin(batch))
    assert list(network.state_dict()) == names
    assert torch.equal(network[1].running_mean, twin[1].running_mean)
    torch.testing.assert_close(copy.deepcopy(network).eval()(images()), twin.eval()(images()))


@pytest.mark.usefixtures("traced_only")
def test_hooks_see_a_compiled_network_too() -> None:
    network, seen = tiny_network(), list[torch.dtype]()
    COMPILED(network, images())
    outputs_of(network[0], seen)
    assert is_watched(network)
    COMPILED(network, images())
    assert seen == [torch.float32]
    teacher = tiny_teacher(batchnorm=True).with_precision(COMPILED)
    teacher(images())
    with BatchNormStatistics(teacher.network) as statistics:
        teacher(images())
        assert len(statistics.moments) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("traced_only")
def test_a_run_with_compiled_networks_learns_publishes_and_resumes(tmp_path: Path) -> None:
    def go(**more: Any) -> Distilled:
        return run(tiny_config(compute={"compile": True, "precision": "bf16"}, budget={"steps": 12}), **more)

    whole = go()
    with pytest.raises(Stopped):
        go(on_step=stopping_at(4), checkpoints=CheckpointWriter(tmp_path, every_seconds=3600))
    assert content(go(resume_from=written(tmp_path)[-1])) == content(whole)
    assert list(whole.student.state_dict()) == list(tiny_network().state_dict())


def test_a_host_without_compiler_says_so_at_once() -> None:
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(CompileUnavailable, match=r"torch\.compile does not work here for cpu") as caught,
    ):
        run(tiny_config(compute={"compile": True}), on_step=lambda _update: pytest.fail("the run has begun"))
    assert caught.value.pointer == "/distillation/compute/compile"
    assert "C++ compiler" in str(caught.value.hint)


@pytest.mark.slow
def test_kernels_that_are_compiled_give_a_run_that_resumes(tmp_path: Path) -> None:
    if reason := why_nothing_compiles():
        pytest.skip(reason)
    config = tiny_config(compute={"compile": True}, budget={"steps": 12})
    whole = run(config)
    with pytest.raises(Stopped):
        run(config, on_step=stopping_at(4), checkpoints=CheckpointWriter(tmp_path, every_seconds=3600))
    assert content(run(config, resume_from=written(tmp_path)[-1])) == content(whole)


@pytest.mark.gpu
@pytest.mark.parametrize("compute", [{}, *SETTINGS])
def test_a_run_on_cuda_ends_with_a_student_as_good(compute: dict[str, Any]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config = tiny_config(
        compute=compute,
        budget={"steps": 240},
        method_options={"learning_rate": 2e-3, "warmup_rounds": 5, "output": "bounded", "batchnorm_eps": 1e-5},
        training={
            "updates_per_round": 10,
            "learning_rate": 5e-3,
            "rate_warmup": 0.0,
            "augmentation": {"shift": 0.0, "rotation": 0.0, "mixup": 0.25},
        },
        steadiness={"evaluations": 8, "audit_size": 200},
    )
    distilled = run(config, student=tiny_network().cuda())
    logits = distilled.student.cpu()(distilled.audit.batch().images.cpu())
    agreeing = logits.argmax(dim=1) == distilled.audit.teacher_logits.cpu().argmax(dim=1)
    assert agreeing.double().mean() > 0.7
    assert {parameter.dtype for parameter in distilled.student.parameters()} == {torch.float32}
