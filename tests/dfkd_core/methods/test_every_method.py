"""Every system of the menu, by its name, from a teacher's file to a student's: the whole path with tiny settings."""

from pathlib import Path
from typing import Any, get_args

import pytest

from dfkd_core.options.registry import MemoryName, MethodName
from dfkd_core.pipeline import Compressed, compress
from dfkd_core.spec.config import DistillConfig, DistillSpec
from tests.builders import onnx_teacher

SMALL = {
    "batch_size": 16,
    "width": 4,
    "latent_dim": 8,
    "warmup_rounds": 1,
    "updates_per_round": 1,
    "steps": 2,
    "probe_steps": 2,
    "feature_capacity": 32,
    "negatives": 8,
    "slot_images": 8,
}


def small(options: Any) -> dict[str, Any]:
    return {name: value for name, value in SMALL.items() if name in type(options).model_fields}


def student_of(tmp_path: Path, **choice: Any) -> Compressed:
    usual = DistillConfig.model_validate(choice)
    spec = {
        "teacher": {"input": {"shape": [1, 32, 32], "mean": [0.5], "std": [0.5]}},
        "student": {"architecture": "teacher", "width": 0.5},
        "distillation": {
            **choice,
            "budget": {"steps": 8},
            "training": {"batch_size": 16, "updates_per_round": 4, "fresh_batches": 1, "replays_per_round": 16},
            "procedural": {"images_per_round": 64, "capacity": 200, "refinement": {"images_per_round": 8, "steps": 2}},
            "steadiness": {"probe_size": 32, "audit_size": 16, "evaluations": 2},
            "method_options": small(usual.method_options),
            "memory_options": small(usual.memory_options),
        },
    }
    teacher = tmp_path / "teacher.onnx"
    teacher.write_bytes(onnx_teacher())
    return compress(
        teacher,
        DistillSpec.model_validate(spec),
        workspace=tmp_path / "work",
        threads=1,
        device="cpu",
        on_step=lambda _update: False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in get_args(MethodName) if name != "ddad"])
def test_a_teacher_without_statistics_is_enough(method: str, tmp_path: Path) -> None:
    outcome = student_of(tmp_path, method=method)
    assert outcome.report.spec["distillation"]["method"] == method
    assert outcome.report.student.init == "teacher"
    assert outcome.report.parity.top1_mismatches == 0
    assert outcome.artifacts["student.onnx"].stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("memory", get_args(MemoryName))
def test_every_memory_serves_pre_dfkd(memory: str, tmp_path: Path) -> None:
    outcome = student_of(tmp_path, method="pre_dfkd", memory=memory)
    assert outcome.report.spec["distillation"]["memory"] == memory
    assert (outcome.report.memory_bytes > 0) == (memory != "none")
