"""Teachers as people have them, distilled: the student's file takes and returns what its teacher's does."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto

from dfkd_core.pipeline import Compressed, compress
from dfkd_core.spec.config import DistillSpec
from tests.dfkd_core.interfaces import (
    CLASSES,
    SIDE,
    binary,
    channels_last,
    doubles,
    pixels,
    probabilities,
    two_outputs,
)
from tests.dfkd_core.onnx_models import save

pytestmark = pytest.mark.usefixtures("exporter_table")

FLOATS, BYTES = ("tensor(float)", np.float32), ("tensor(uint8)", np.uint8)
KINDS: dict[str, tuple[ModelProto, dict[str, Any], tuple[str, Any], tuple[int, ...]]] = {
    "channels last": (channels_last(), {}, FLOATS, (SIDE, SIDE, 3)),
    "whole pixels, channels last": (pixels("NHWC"), {}, BYTES, (SIDE, SIDE, 3)),
    "one probability, squeezed": (binary(sigmoid=True, squeezed=True), {}, FLOATS, (3, SIDE, SIDE)),
    "probabilities": (probabilities(), {}, FLOATS, (3, SIDE, SIDE)),
    "two outputs": (two_outputs(), {"output": "logits"}, FLOATS, (3, SIDE, SIDE)),
}


def distilled(teacher: Path, workspace: Path, *, told: dict[str, Any], student: dict[str, Any]) -> Compressed:
    spec = DistillSpec.model_validate(
        {
            "teacher": told,
            "student": student,
            "distillation": {
                "budget": {"steps": 8},
                "memory": "reservoir",
                "training": {"batch_size": 16, "updates_per_round": 4, "fresh_batches": 1, "replays_per_round": 16},
                "procedural": {
                    "images_per_round": 32,
                    "capacity": 100,
                    "refinement": {"images_per_round": 8, "steps": 3},
                },
                "steadiness": {"probe_size": 32, "audit_size": 32, "evaluations": 2},
                "method_options": {"width": 4, "latent_dim": 8, "batch_size": 16, "warmup_rounds": 1},
            },
        }
    )
    return compress(teacher, spec, workspace=workspace, threads=1, device="cpu", on_step=lambda _: False)


@pytest.mark.parametrize(
    "student", [{"architecture": "teacher", "width": 0.5}, {"architecture": "resnet8", "width": 0.1}]
)
@pytest.mark.parametrize("kind", KINDS)
def test_student_and_teacher_take_and_return_the_same(kind: str, student: dict[str, Any], tmp_path: Path) -> None:
    made, told, (element, dtype), dims = KINDS[kind]
    teacher = save(made, tmp_path / "teacher.onnx")
    outcome = distilled(teacher, tmp_path / "work", told=told, student=student)
    sessions = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (teacher, outcome.artifacts["student.onnx"])
    ]
    (taken,), (also_taken,) = (session.get_inputs() for session in sessions)
    assert (also_taken.name, also_taken.type, also_taken.shape[1:]) == (taken.name, element, [*dims])
    numbers = np.random.default_rng(0)
    draws = numbers.integers(0, 256, (6, *dims)) if dtype is np.uint8 else numbers.standard_normal((6, *dims))
    name = sessions[1].get_outputs()[0].name
    assert [output.name for output in sessions[1].get_outputs()] == [
        told.get("output", sessions[0].get_outputs()[0].name)
    ]
    theirs, ours = (session.run([name], {taken.name: draws.astype(dtype)})[0] for session in sessions)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    report = outcome.report
    assert report.student.interface == report.teacher.interface
    assert len(report.agreement.per_class) == (2 if kind.startswith("one") else CLASSES)
    if kind == "probabilities":
        assert np.allclose(ours.sum(1), 1, atol=1e-5)
    if kind.startswith("one"):
        assert ours.min() >= 0
        assert ours.max() <= 1
    onnx.checker.check_model(onnx.load(outcome.artifacts["student.onnx"]), full_check=True)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    teacher = save(pixels("NHWC"), tmp_path / "teacher.onnx")
    student = {"architecture": "teacher", "width": 0.5}
    runs = [distilled(teacher, tmp_path / name, told={}, student=student) for name in ("a", "b")]
    first, second = (one.artifacts["student.onnx"].read_bytes() for one in runs)
    assert first == second
    assert runs[0].report.student.weights_input.scale == 127.5


def test_a_teacher_of_float64_gives_a_student_of_float64_and_is_not_timed(tmp_path: Path) -> None:
    teacher = save(doubles(), tmp_path / "teacher.onnx")
    outcome = distilled(teacher, tmp_path / "work", told={}, student={"architecture": "teacher", "width": 0.5})
    student = onnxruntime.InferenceSession(str(outcome.artifacts["student.onnx"]), providers=["CPUExecutionProvider"])
    assert student.get_inputs()[0].type == student.get_outputs()[0].type == "tensor(double)"
    assert outcome.report.teacher.latency is None
