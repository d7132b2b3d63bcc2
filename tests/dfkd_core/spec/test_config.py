"""The config: options take their name from the requested method or memory, and no other name."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from dfkd_core.options.memories.ring import RingOptions
from dfkd_core.options.registry import MemoryName, MethodName
from dfkd_core.spec.config import DistillConfig, DistillSpec


def refusals(**distillation: Any) -> set[tuple[str, tuple[int | str, ...]]]:
    """Type and place of everything that is wrong."""
    with pytest.raises(ValidationError) as caught:
        DistillSpec.model_validate({"student": {"architecture": "lenet5"}, "distillation": distillation})
    return {(error["type"], error["loc"][1:]) for error in caught.value.errors()}


def test_options_of_another_memory_are_refused_as_an_unknown_key() -> None:
    unknown = ("extra_forbidden", ("memory_options", "vae", "name"))
    assert refusals(memory_options={"name": "none"}) == {unknown}
    assert refusals(memory_options={"name": "none"}, budget={"steps": 0}) == {
        unknown,
        ("greater_than_equal", ("budget", "steps")),
    }


def test_options_of_another_method_are_refused_with_all_that_is_wrong_in_them() -> None:
    assert refusals(method_options={"name": "x", "y": 1}) == {
        ("extra_forbidden", ("method_options", "pre_dfkd", "name")),
        ("extra_forbidden", ("method_options", "pre_dfkd", "y")),
    }


def test_options_are_those_of_the_method_that_was_asked_for() -> None:
    assert refusals(method="rdskd", method_options={"adv_weight": 1.0}) == {
        ("extra_forbidden", ("method_options", "rdskd", "adv_weight"))
    }
    assert refusals(method="dfad", method_options={"name": "dafl"}) == {
        ("extra_forbidden", ("method_options", "dfad", "name"))
    }
    assert ("literal_error", ("method",)) in refusals(method="dfxx", method_options={"batch_size": 4})


def test_references_must_be_taken_within_an_epoch() -> None:
    wrong = {"epoch_updates": 3, "reference_update": 3}
    assert refusals(method="rdskd", method_options=wrong) == {("value_error", ("method_options", "rdskd"))}


def test_a_preset_lies_under_what_is_given() -> None:
    config = DistillConfig.model_validate(
        {"method": "dfad", "preset": "paper", "method_options": {"width": 8}, "training": {"batch_size": 32}}
    )
    assert (config.memory, config.training.updates_per_round, config.training.loss) == ("none", 5, "l1")
    assert (config.method_options.width, config.training.batch_size) == (8, 32)
    assert config.method_options.latent_dim == 256


def test_a_memory_other_than_the_presets_has_its_own_published_settings() -> None:
    config = DistillConfig.model_validate(
        {"preset": "paper-reconstructed", "memory": "ring", "memory_options": {"slots": 3}}
    )
    assert config.memory_options == RingOptions(slots=3, push_rounds=180, first_push_rounds=36, storage="float32")
    assert DistillConfig.model_validate({"preset": "paper", "memory": "none"}).memory_options.name == "none"
    assert DistillConfig.model_validate({"memory": "ring"}).memory_options == RingOptions()


@pytest.mark.parametrize("said", [{"method": "mad"}, {"method": "sttss"}, {"memory": "ring"}])
def test_what_had_to_be_reconstructed_is_not_called_published(said: dict[str, str]) -> None:
    assert ("preset_reconstructed", ("preset",)) in refusals(preset="paper", **said)
    config = DistillConfig.model_validate({**said, "preset": "paper-reconstructed"})
    assert config.procedural.share == 0


def test_the_name_that_was_asked_for_may_be_repeated() -> None:
    config = DistillConfig.model_validate({"memory": "none", "memory_options": {"name": "none"}})
    assert config == DistillConfig(memory="none")


@pytest.mark.parametrize("memory", get_args(MemoryName))
def test_a_dumped_config_comes_back(memory: str) -> None:
    config = DistillConfig.model_validate({"memory": memory})
    assert config.memory_options.name == memory
    assert "name" not in config.model_dump()["memory_options"]
    assert DistillConfig.model_validate(config.model_dump()) == config
    assert DistillConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("method", get_args(MethodName))
@pytest.mark.parametrize("preset", ["default", "paper-reconstructed"])
def test_a_dumped_config_of_any_method_comes_back(method: str, preset: str) -> None:
    config = DistillConfig.model_validate({"method": method, "preset": preset})
    assert config.method_options.name == method
    assert DistillConfig.model_validate(config.model_dump()) == config
    assert DistillConfig.model_validate_json(config.model_dump_json()) == config


def test_the_command_line_names_the_fields_that_are_wrong() -> None:
    wrong = ["memory_options.name=none", "memory_options.nonsense=1", "method_options.name=x", "seed=-1"]
    words = [word for field in wrong for word in ("--set", f"distillation.{field}")]
    command = [sys.executable, "-m", "dfkd_core", "teacher.onnx", "--student", "lenet5", *words]
    ran = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert {line.partition(": ")[0] for line in ran.stderr.splitlines()} == {
        "/distillation/memory_options/name",
        "/distillation/memory_options/nonsense",
        "/distillation/method_options/name",
        "/distillation/seed",
    }
