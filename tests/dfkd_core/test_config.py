"""The config: options take their name from the method or memory that was asked for, and no other."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dfkd_core.config import DistillConfig, DistillSpec


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


def test_the_name_that_was_asked_for_may_be_repeated() -> None:
    config = DistillConfig.model_validate({"memory": "none", "memory_options": {"name": "none"}})
    assert config == DistillConfig(memory="none")


@pytest.mark.parametrize("memory", ["none", "reservoir", "vae"])
def test_a_dumped_config_comes_back(memory: str) -> None:
    config = DistillConfig.model_validate({"memory": memory})
    assert config.memory_options.name == memory
    assert "name" not in config.model_dump()["memory_options"]
    assert DistillConfig.model_validate(config.model_dump()) == config
    assert DistillConfig.model_validate_json(config.model_dump_json()) == config


def test_the_command_line_names_the_fields_that_are_wrong() -> None:
    wrong = ["memory_options.name=none", "memory_options.nonsense=1", "method_options.name=x", "seed=-1"]
    words = [word for field in wrong for word in ("--set", f"distillation.{field}")]
    command = [sys.executable, "-m", "dfkd_core", "teacher.onnx", "--student", "lenet5", *words]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert {line.partition(": ")[0] for line in ran.stderr.splitlines()} == {
        "/distillation/memory_options/name",
        "/distillation/memory_options/nonsense",
        "/distillation/method_options/name",
        "/distillation/seed",
    }
