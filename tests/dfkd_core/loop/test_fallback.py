"""Auto and the fallback: a method chosen from facts about the teacher, and another that takes over when it fails."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dfkd_core.errors import GeneratorCollapsed, Stopped
from dfkd_core.inspection.auto_method import COSTLY_MACS, DEEP_MACS
from dfkd_core.inspection.resolve import resolve
from dfkd_core.loop.checkpoint import CheckpointWriter
from dfkd_core.loop.distill import Distilled
from dfkd_core.loop.state import Run, build_run
from dfkd_core.planning.rounds import Rounds
from dfkd_core.progress import Update
from dfkd_core.spec.config import DistillConfig, DistillSpec
from tests.dfkd_core.inspection.test_resolve import inspection
from tests.dfkd_core.loop.test_distill import content, run, stopping_at, written
from tests.dfkd_core.tiny import tiny_config, tiny_network, tiny_teacher

COLLAPSING = {"min_class_entropy": 1.0, "max_rollbacks": 1, "evaluations": 4}  # no batch is ever good enough


def resolved(facts: dict[str, Any] | None = None, **distillation: Any) -> DistillConfig:
    spec = DistillSpec.model_validate(
        {"student": {"architecture": "lenet5_half"}, "distillation": {"method": "auto", **distillation}}
    )
    return resolve(spec, inspection(**(facts or {})))[0].distillation


def test_auto_follows_what_the_teacher_offers() -> None:
    plain, statistics = resolved(), resolved({"offers": ["batchnorm", "features"]})
    assert "no BatchNorm" in (plain.because or "")
    assert "match" in (statistics.because or "")
    assert (plain.method, statistics.method) == ("pre_dfkd", "deepinversion")
    assert statistics.procedural.share == 0
    assert statistics.training.feature_weight > 0
    assert statistics.memory == "reservoir"
    assert plain.fallback not in (None, plain.method)


def test_auto_makes_few_images_of_a_costly_teacher() -> None:
    costly, cheap = (resolved({"offers": ["batchnorm"], "macs": macs}) for macs in (4 * COSTLY_MACS, 10**6))
    assert costly.method == cheap.method
    assert images_made(costly) < images_made(cheap) / 4
    assert f"{4 * COSTLY_MACS:,}" in (costly.because or "")


def images_made(config: DistillConfig) -> int:
    rounds = Rounds.of(config)
    return (rounds.warmup + rounds.synthesizing) * config.method_options.batch_size


def test_auto_refines_shapes_for_a_deep_teacher_without_statistics() -> None:
    deep, flat = resolved({"macs": 2 * DEEP_MACS}), resolved({"macs": DEEP_MACS // 2})
    assert (deep.method, flat.method) == ("deepinversion", "pre_dfkd")
    assert deep.procedural.share > 0
    assert deep.procedural.refinement.share > flat.procedural.refinement.share
    assert "no BatchNorm" in (deep.because or "")


def test_auto_keeps_what_was_said_over_what_it_chose() -> None:
    said = {"seed": 7, "fallback": "dafl", "training": {"augmentation": {"mixup": 0.1}}}
    config = resolved({"offers": ["batchnorm"]}, **said)
    assert (config.seed, config.fallback, config.training.augmentation.mixup) == (7, "dafl", 0.1)
    chosen = resolved({"offers": ["batchnorm"]}).training
    assert config.training == chosen.model_copy(update={"augmentation": config.training.augmentation})


@pytest.mark.parametrize("said", [{}, {"distillation": {}}, {"distillation": {"seed": 3}}])
def test_a_spec_that_says_nothing_of_the_method_means_auto(said: dict[str, Any]) -> None:
    assert DistillSpec.model_validate({"student": {"architecture": "lenet5"}, **said}).distillation.method == "auto"


@pytest.mark.parametrize("said", [{"method": "dafl"}, {"preset": "paper"}, {"method_options": {"width": 4}}])
def test_a_spec_that_says_something_of_the_method_means_that(said: dict[str, Any]) -> None:
    spec = DistillSpec.model_validate({"student": {"architecture": "lenet5"}, "distillation": said})
    assert spec.distillation.method == said.get("method", "pre_dfkd")
    assert spec.distillation.because is None


def test_options_of_a_memory_bring_that_memory_along() -> None:
    config = resolved({"offers": ["batchnorm"]}, memory_options={"latent_dim": 12})
    assert config.memory == "vae"


def test_what_was_resolved_stays() -> None:
    config = resolved()
    assert DistillConfig.model_validate(config.model_dump(mode="json")) == config


def test_auto_takes_no_options_of_a_method() -> None:
    with pytest.raises(ValidationError, match="name one instead of auto"):
        DistillConfig.model_validate({"method": "auto", "method_options": {"latent_dim": 3}})


def falling(**changes: Any) -> DistillConfig:
    usual = {"fallback": "dafl", "steadiness": COLLAPSING, "budget": {"steps": 60}}
    return tiny_config(**{**usual, **changes})


def test_a_collapsed_method_is_replaced_within_the_same_budget() -> None:
    updates: list[Update] = []
    with pytest.raises(GeneratorCollapsed):  # the fallback cannot please this guard either
        run(falling(budget={"steps": 400}), on_step=lambda update: bool(updates.append(update)))
    (evidence,) = [update for update in updates if update.kind == "fell-back"]
    assert evidence.data["from"] == "pre_dfkd"
    assert evidence.data["to"] == "dafl"
    assert "class entropy" in evidence.data["reason"]
    assert evidence.step < 400


def test_a_plateau_is_left() -> None:
    updates: list[Update] = []
    steady = {"margin": 1e6, "evaluations": 20}  # nothing is ever better than the first student
    distilled = run(falling(steadiness=steady), on_step=lambda update: bool(updates.append(update)))
    (evidence,) = [update for update in updates if update.kind == "fell-back"]
    assert "no better student" in evidence.data["reason"]
    assert 15 < evidence.step < 30
    assert distilled.student_updates == 60


def test_without_a_fallback_a_plateau_is_sat_out() -> None:
    kinds: list[str] = []
    config = tiny_config(steadiness={"margin": 1e6, "evaluations": 20}, budget={"steps": 60})
    run(config, on_step=lambda update: bool(kinds.append(update.kind)))
    assert "fell-back" not in kinds


def test_a_run_that_fell_back_resumes_bit_for_bit(tmp_path: Path) -> None:
    config = falling(steadiness={"margin": 1e6, "evaluations": 20})

    def go(**more: Any) -> Distilled:
        return run(config, **more)

    whole = go()
    with pytest.raises(Stopped):
        go(on_step=stopping_at(40), checkpoints=CheckpointWriter(tmp_path, every_seconds=3600))
    resumed = go(resume_from=written(tmp_path)[-1])
    assert content(resumed) == content(whole)
    assert resumed.curve == whole.curve


def test_the_fallback_starts_with_a_warm_up_of_its_own() -> None:
    made: Run = build_run(tiny_teacher(), tiny_network(), falling())
    made.counters.warmup_rounds = 2
    made.take_over("dafl")
    assert made.config.method == "dafl"
    assert made.config.fallback is None
    assert made.counters.warmup_rounds == 0
    assert made.config.training == falling().training
