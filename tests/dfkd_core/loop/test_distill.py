"""The loop: its promises about the published student, interruption, budget and failure."""

import functools
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

from dfkd_core.errors import CheckpointMismatch, DistillationDiverged, GeneratorCollapsed, Stopped
from dfkd_core.images.batch import Batch
from dfkd_core.images.student_answers import answers
from dfkd_core.loop.checkpoint import CheckpointWriter, written
from dfkd_core.loop.distill import Distilled, distill
from dfkd_core.loop.probe import agrees
from dfkd_core.loop.round import train_round
from dfkd_core.loop.state import build_run
from dfkd_core.memories.ema import EmaMemory
from dfkd_core.networks.teacher import Teacher
from dfkd_core.progress import Update
from dfkd_core.spec.config import DistillConfig
from tests.dfkd_core.methods.test_method_contract import GENERATORS
from tests.dfkd_core.tiny import SHAPE, tiny_config, tiny_network, tiny_teacher

MEMORIES = ["ema", "none", "reservoir", "ring", "vae"]


def never(_update: Update) -> bool:
    return False


def run(
    config: DistillConfig, *, teacher: Teacher | None = None, student: nn.Module | None = None, **more: Any
) -> Distilled:
    more.setdefault("on_step", never)
    return distill(teacher or tiny_teacher(), student or tiny_network(), config, **more)


def content(distilled: Distilled) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in distilled.student.state_dict().items()})


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("batchnorm", [False, True])
def test_a_run_ends_with_a_published_student(memory: str, batchnorm: bool) -> None:
    distilled = run(
        tiny_config(memory=memory),
        teacher=tiny_teacher(batchnorm=batchnorm),
        student=tiny_network(batchnorm=batchnorm),
    )
    assert not distilled.student.training
    assert distilled.student_updates == 24
    assert distilled.curve[-1]["step"] == 24
    assert distilled.curve[-1]["published"] == distilled.probe_agreement
    assert 0 < distilled.published_step <= 24
    assert distilled.warnings == []
    assert (distilled.memory_bytes > 0) == (memory != "none")
    assert len(distilled.audit) > 0


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 9, 13), (3, 16, 16)])
def test_other_channels_and_sizes(shape: tuple[int, int, int]) -> None:
    config = tiny_config(memory="vae", budget={"steps": 8})
    distilled = run(config, teacher=tiny_teacher(shape=shape), student=tiny_network(shape=shape))
    assert distilled.audit.batch().images.shape[1:] == shape


def test_the_student_learns_the_teacher() -> None:
    config = tiny_config(
        budget={"steps": 240},
        method_options={"learning_rate": 2e-3, "warmup_rounds": 5, "output": "bounded", "batchnorm_eps": 1e-5},
        training={
            "updates_per_round": 10,
            "learning_rate": 5e-3,
            "rate_warmup": 0.0,
            "augmentation": {"shift": 0.0, "rotation": 0.0, "mixup": 0.25},  # eight pixels bear no turning
        },
        steadiness={"evaluations": 8, "audit_size": 200},
    )
    teacher, student = tiny_teacher(), tiny_network()
    noise = torch.rand((500, *SHAPE), generator=torch.Generator().manual_seed(9)) * 3 - 1
    distilled = run(config, teacher=teacher, student=student)
    for unseen, least in (distilled.audit, 0.7), (Batch(images=noise, teacher_logits=teacher.label(noise)), 0.3):
        before = agrees(answers(tiny_network(), unseen), unseen).double().mean()
        after = agrees(answers(distilled.student, unseen), unseen).double().mean()
        assert after > max(least, before + 0.2)


@pytest.mark.parametrize(("share", "drawn_images"), [(0.0, False), (0.5, True), (1.0, True)])
def test_procedural_images_are_drawn_only_where_asked_for(share: float, *, drawn_images: bool) -> None:
    config = tiny_config(procedural={"share": share, "images_per_round": 64, "capacity": 4000})
    state = build_run(tiny_teacher(), tiny_network(), config)
    for _ in range(config.method_options.warmup_rounds + 1):  # they are drawn in the warm-up too
        train_round(state)
    assert len(state.images.procedural) == (
        48 * state.counters.rounds if drawn_images else 0
    )  # the others are held out
    assert len(state.images.refined) == (6 * state.counters.rounds if drawn_images else 0)


def test_equal_runs_give_equal_bytes_and_other_seeds_do_not() -> None:
    one, same, other = (run(tiny_config(seed=seed)) for seed in (3, 3, 4))
    assert content(one) == content(same)
    assert one.curve == same.curve
    assert content(one) != content(other)


def test_the_global_random_state_of_the_caller_is_left_alone() -> None:
    before = torch.get_rng_state()
    run(tiny_config(budget={"steps": 4}))
    assert torch.equal(before, torch.get_rng_state())


def stopping_at(round_number: int) -> Any:
    seen = {"rounds": 0}

    def on_step(update: Update) -> bool:
        seen["rounds"] += update.kind == "progress"
        return seen["rounds"] >= round_number

    return on_step


def interruptible(memory: str) -> DistillConfig:
    restarts = {"restart_rounds": 3} if memory in {"ema", "vae"} else {}
    rings = {"memory_options": {"push_rounds": 2, "slots": 2, "slot_images": 6}} if memory == "ring" else {}
    return tiny_config(memory=memory, steadiness={"consolidation": 0.3}, method_options=restarts, **rings)


@functools.cache
def uninterrupted(memory: str, *, batchnorm: bool) -> Distilled:
    teacher = tiny_teacher(batchnorm=batchnorm)
    return run(interruptible(memory), teacher=teacher, student=tiny_network(batchnorm=batchnorm))


@pytest.mark.parametrize(
    ("memory", "stop_at", "batchnorm"),
    [
        ("ema", 1, False),
        ("ema", 5, True),
        ("ema", 8, False),
        ("none", 3, False),
        ("ring", 4, False),
        ("reservoir", 1, False),
        ("reservoir", 5, True),
        ("vae", 1, True),
        ("vae", 3, True),
        ("vae", 4, False),
        ("vae", 5, False),
        ("vae", 8, False),
    ],
)
def test_an_interrupted_run_equals_the_uninterrupted_one(
    tmp_path: Path, memory: str, stop_at: int, batchnorm: bool
) -> None:
    config, teacher = interruptible(memory), tiny_teacher(batchnorm=batchnorm)
    whole = uninterrupted(memory, batchnorm=batchnorm)
    checkpoints = CheckpointWriter(tmp_path, every_seconds=3600)
    with pytest.raises(Stopped):
        run(
            config,
            teacher=teacher,
            student=tiny_network(batchnorm=batchnorm),
            on_step=stopping_at(stop_at),
            checkpoints=checkpoints,
        )
    (path,) = written(tmp_path)
    other_start = tiny_network(batchnorm=batchnorm)
    nn.init.zeros_(other_start[0].weight)
    resumed = run(config, teacher=teacher, student=other_start, resume_from=path)
    assert content(resumed) == content(whole)
    assert resumed.curve == whole.curve
    assert torch.equal(resumed.audit.batch().images, whole.audit.batch().images)
    assert resumed.teacher_forwards == whole.teacher_forwards


@pytest.mark.parametrize("method", GENERATORS)
def test_every_method_with_a_generator_distils_and_continues_where_it_was(tmp_path: Path, method: str) -> None:
    def go(**more: Any) -> Distilled:
        config = method_config(method)
        return run(config, teacher=tiny_teacher(batchnorm=True), **more)

    whole = go()
    with pytest.raises(Stopped):
        go(on_step=stopping_at(3), checkpoints=CheckpointWriter(tmp_path, every_seconds=3600))
    resumed = go(resume_from=written(tmp_path)[-1])
    assert whole.student_updates == 12
    assert content(resumed) == content(whole)
    assert resumed.curve == whole.curve


def method_config(method: str) -> DistillConfig:
    """The method with its own memory and schedule, as small as it goes."""
    sizes = {"latent_dim": 6, "width": 4, "batch_size": 24, "warmup_rounds": 2}
    usual = DistillConfig.model_validate({"method": method})
    return tiny_config(
        method=method,
        memory="reservoir" if usual.memory == "vae" else usual.memory,
        budget={"steps": 12},
        method_options={key: value for key, value in sizes.items() if key in type(usual.method_options).model_fields},
        steadiness={"consolidation": usual.steadiness.consolidation},
    )


def test_a_generator_that_learns_alone_is_frozen_from_the_first_student_step() -> None:
    config = method_config("rdskd")
    assert config.steadiness.consolidation == 1
    state = build_run(tiny_teacher(), tiny_network(), config)
    weights = []
    for _ in range(4):
        weights.append(state.images.synthesizer.state()["network"]["conv1.weight"].clone())
        train_round(state)
    weights.append(state.images.synthesizer.state()["network"]["conv1.weight"].clone())
    same = [torch.equal(one, other) for one, other in itertools.pairwise(weights)]
    assert same == [False, False, True, True]
    assert state.counters.steps == 8


def test_the_averaged_generator_starts_anew_with_the_generator() -> None:
    config = tiny_config(memory="ema", method_options={"restart_rounds": 1}, memory_options={"decay": 1.0})
    state = build_run(tiny_teacher(), tiny_network(), config)
    for _ in range(3):  # two of warm-up, one that teaches and restarts
        train_round(state)
    assert isinstance(state.memory, EmaMemory)
    assert state.memory.network is not None
    pairs = zip(state.memory.network.parameters(), state.images.synthesizer.generator.parameters(), strict=True)
    assert all(torch.equal(average, current) for average, current in pairs)


def test_dropout_continues_where_it_was(tmp_path: Path) -> None:
    def dropping() -> nn.Module:
        return nn.Sequential(nn.Dropout(0.3), tiny_network())

    whole = run(tiny_config(), student=dropping())
    with pytest.raises(Stopped):
        run(
            tiny_config(),
            student=dropping(),
            on_step=stopping_at(5),
            checkpoints=CheckpointWriter(tmp_path, every_seconds=3600),
        )
    resumed = run(tiny_config(), student=dropping(), resume_from=written(tmp_path)[0])
    assert content(resumed) == content(whole)


def test_checkpoints_do_not_change_the_run_and_the_last_one_holds_the_end(tmp_path: Path) -> None:
    whole = run(tiny_config())
    updates: list[Update] = []
    with_checkpoints = run(
        tiny_config(),
        on_step=lambda update: bool(updates.append(update)),
        checkpoints=CheckpointWriter(tmp_path, every_seconds=0),
    )
    assert content(with_checkpoints) == content(whole)
    told = [update.data["path"] for update in updates if update.kind == "checkpoint"]
    assert told[-1] == str(written(tmp_path)[-1])
    assert len(written(tmp_path)) == 2
    rounds: list[Update] = []
    again = run(tiny_config(), resume_from=written(tmp_path)[-1], on_step=lambda update: bool(rounds.append(update)))
    assert [(update.kind, update.published_step) for update in rounds] == [("stage", whole.published_step)]
    assert content(again) == content(whole)
    assert torch.equal(again.audit.batch().images, whole.audit.batch().images)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    checkpoints = CheckpointWriter(tmp_path, every_seconds=math.inf, fingerprint={"teacher-file": "a"})
    run(tiny_config(), checkpoints=checkpoints)
    (path,) = written(tmp_path)  # the final one: a run would otherwise wait for the disk after every step
    with pytest.raises(CheckpointMismatch, match="config"):
        run(tiny_config(seed=1), resume_from=path)
    other_file = CheckpointWriter(tmp_path, every_seconds=math.inf, fingerprint={"teacher-file": "b"})
    with pytest.raises(CheckpointMismatch, match="teacher-file"):
        run(tiny_config(), resume_from=path, checkpoints=other_file)


def test_updates_tell_the_whole_story() -> None:
    updates: list[Update] = []
    distilled = run(tiny_config(), on_step=lambda update: bool(updates.append(update)))
    fractions = [update.fraction for update in updates]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert updates[0].kind == "stage"
    published = [update for update in updates if update.kind == "published"]
    assert published[-1].step == distilled.published_step
    assert published[-1].agreement == published[-1].data["agreement"]
    assert (updates[-1].agreement, updates[-1].published_step) == (
        distilled.probe_agreement,
        distilled.published_step,
    )
    assert all((update.agreement is None) == (update.published_step is None) for update in updates)
    progress = [update for update in updates if update.kind == "progress"]
    assert {"onehot", "balance", "adv", "student"} <= set(progress[3].data["losses"])


def test_measuring_sees_three_students_and_changes_nothing() -> None:
    seen: list[tuple[int, set[str]]] = []
    measured = run(tiny_config(), measure=lambda step, students: seen.append((step, set(students))))
    assert [step for step, _names in seen] == [point["step"] for point in measured.curve]
    assert all(names == {"raw", "ema", "published"} for _step, names in seen)
    assert content(measured) == content(run(tiny_config()))


def test_held_out_images_are_never_trained_on() -> None:
    """Every image that the student sees in training differs from every image of probe and audit."""
    trained: list[torch.Tensor] = []
    student = tiny_network()
    student.register_forward_pre_hook(
        lambda module, inputs: trained.append(inputs[0].detach().clone()) if module.training else None
    )
    unchanged = {"augmentation": {"shift": 0.0, "flip": False, "mixup": 0.0, "noise": 0.0, "rotation": 0.0}}
    distilled = run(tiny_config(memory="none", training=unchanged), student=student)
    seen = torch.cat(trained).flatten(1)
    held_out = distilled.audit.batch().images.flatten(1)
    assert len(seen) == 24 * 16
    assert torch.cdist(held_out, seen).min() > 0.01


@pytest.mark.parametrize("valid_range", [True, False])
def test_the_student_and_the_audit_see_valid_pixels(valid_range: bool) -> None:
    """The tiny teacher's are from -1 to 2; a standardised generator also makes others."""
    extremes: list[torch.Tensor] = []
    student = tiny_network()
    student.register_forward_pre_hook(
        lambda module, inputs: extremes.append(inputs[0].detach().aminmax()) if module.training else None
    )
    options = {"valid_range": valid_range, "augmentation": {"noise": 0.0}}
    audit = run(tiny_config(memory="none", training=options), student=student).audit.batch().images
    lowest = min(float(images.min) for images in extremes)
    assert (lowest >= -1) == valid_range
    assert (float(audit.min()) >= -1) == valid_range


def test_a_short_run_has_a_whole_audit_set_too() -> None:
    audit = run(tiny_config(steadiness={"audit_size": 400})).audit
    assert len(audit) > 300
    assert (audit.teacher_logits.argmax(dim=1).bincount(minlength=4) > 0).all()


def test_nan_ends_the_run_by_name() -> None:
    wild = {"optimizer": "sgd", "learning_rate": 1e6, "gradient_clip": None}
    with pytest.raises(DistillationDiverged, match="student"):
        run(tiny_config(training=wild, budget={"steps": 400}))


def test_a_collapsed_generator_is_rolled_back_and_given_up_in_the_end() -> None:
    updates: list[Update] = []
    config = tiny_config(
        budget={"steps": 400},
        steadiness={"min_class_entropy": 1.0, "max_rollbacks": 2},  # no batch is ever good enough
    )
    with pytest.raises(GeneratorCollapsed, match="class entropy"):
        run(config, on_step=lambda update: bool(updates.append(update)))
    reasons = [update.data["reason"] for update in updates if update.kind == "rolled-back"]
    assert len(reasons) == 2


def test_a_restarted_generator_warms_up_again_without_teaching() -> None:
    taught: list[bool] = []

    def on_step(update: Update) -> bool:
        if update.kind == "progress" and update.data["losses"]:
            taught.append("student" in update.data["losses"])
        return False

    run(tiny_config(method_options={"restart_rounds": 2}, steadiness={"consolidation": 0.2}), on_step=on_step)
    assert taught == [False, False, True, True, False, False, True, True, False, False, True, True]


def test_consolidation_freezes_the_generator() -> None:
    terms: list[dict[str, float]] = []

    def on_step(update: Update) -> bool:
        if update.kind == "progress" and update.data["losses"]:
            terms.append(update.data["losses"])
        return False

    run(tiny_config(steadiness={"consolidation": 0.5}), on_step=on_step)
    learning = ["onehot" in names for names in terms]
    assert learning == [True] * 5 + [False] * 3
