"""The path of a job: the same files for the same request, whole or interrupted, and a report that was measured."""

import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from dfkd_core.__main__ import main
from dfkd_core.errors import AgreementBelowTarget, Stopped, StudentError, TimeLimit
from dfkd_core.loop.checkpoint import written
from dfkd_core.onnx_import.ir.parse import read_model
from dfkd_core.onnx_import.specialize import specialize
from dfkd_core.output.provenance import main as check_report
from dfkd_core.pipeline import Compressed, compress
from dfkd_core.planning.worker_speed import WorkerSpeed
from dfkd_core.progress import BEAT_SECONDS, Update
from dfkd_core.report import PrecisionFacts, Report
from dfkd_core.sandbox.process_tuning import TUNED
from dfkd_core.spec.config import DistillSpec
from tests.builders import onnx_teacher, traces_in, worker_speed

pytestmark = pytest.mark.usefixtures("exporter_table")

STEPS = 24


def a_spec(**changes: Any) -> DistillSpec:
    return DistillSpec.model_validate(
        {
            "teacher": {"input": {"shape": [1, 32, 32], "mean": [0.5], "std": [0.5]}},
            "student": {"architecture": "lenet5_half", "width": 0.5},
            "distillation": {
                "budget": {"steps": STEPS},
                "training": {"batch_size": 16, "updates_per_round": 4, "fresh_batches": 1, "replays_per_round": 16},
                "procedural": {
                    "images_per_round": 64,
                    "capacity": 200,
                    "refinement": {"images_per_round": 8, "steps": 3},
                },
                "steadiness": {"probe_size": 64, "audit_size": 32, "evaluations": 4},
                "method_options": {"width": 4, "latent_dim": 8, "batch_size": 16, "warmup_rounds": 1},
                "memory_options": {"width": 4, "latent_dim": 8, "batch_size": 16},
            },
            **changes,
        }
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.onnx"
    path.write_bytes(onnx_teacher())
    return path


def run(
    teacher: Path, workspace: Path, on_step: Callable[[Update], bool] = lambda _: False, **options: Any
) -> Compressed:
    spec = options.pop("spec", None) or a_spec()
    return compress(teacher, spec, workspace=workspace, threads=1, device="cpu", on_step=on_step, **options)


@pytest.fixture(scope="module")
def updates() -> list[Update]:
    return []


@pytest.fixture(scope="module")
def outcome(teacher: Path, updates: list[Update], tmp_path_factory: pytest.TempPathFactory) -> Compressed:
    return run(teacher, tmp_path_factory.mktemp("whole"), lambda update: bool(updates.append(update)))


@dataclass(frozen=True, slots=True)
class Repeated:
    """A run that went on from a final checkpoint: all its stages but the distillation, which is over."""

    compressed: Compressed
    steps: list[int]
    calls: Counter[str]  # how often the functions that read a teacher's file were called


@pytest.fixture(scope="module")
def final(outcome: Compressed) -> Path:
    """The last checkpoint of the whole run."""
    return max((outcome.artifacts["student.onnx"].parent / "checkpoints").glob("*.safetensors"))


@pytest.fixture(scope="module")
def repeated(teacher: Path, final: Path, tmp_path_factory: pytest.TempPathFactory) -> Repeated:
    """The whole run's export, made again."""
    steps: list[int] = []
    calls: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for function in (read_model, specialize):
            count_calls(patch, function, calls)
        again = run(
            teacher,
            tmp_path_factory.mktemp("repeated"),
            lambda update: bool(update.kind == "progress" and steps.append(update.step)),
            resume_from=final,
        )
    return Repeated(again, steps, calls)


def count_calls(patch: pytest.MonkeyPatch, function: Callable[..., Any], calls: Counter[str]) -> None:
    """Count the calls of a function, in whatever module of the science and under whatever name it is known."""

    @wraps(function)
    def counted(*values: Any, **named: Any) -> Any:
        calls[function.__name__] += 1
        return function(*values, **named)

    for module in [module for name, module in sys.modules.items() if name.startswith("dfkd_core")]:
        for name in [name for name, value in vars(module).items() if value is function]:
            patch.setattr(module, name, counted)


@pytest.fixture(scope="module")
def with_samples(teacher: Path, final: Path, tmp_path_factory: pytest.TempPathFactory) -> Compressed:
    """The whole run's export, made again with samples."""
    spec = a_spec(export={"samples": True})
    return run(teacher, tmp_path_factory.mktemp("with_samples"), spec=spec, resume_from=final)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_files_are_the_ones_the_report_names(outcome: Compressed) -> None:
    report = Report.model_validate_json(outcome.artifacts["report.json"].read_text())
    assert digest(outcome.artifacts["student.onnx"]) == report.student.onnx.sha256
    assert digest(outcome.artifacts["student.safetensors"]) == report.student.safetensors.sha256
    assert 8 <= report.agreement.n <= 32  # the newest quarter, and what each class could fill of its quota
    assert sum(item.count for item in report.agreement.per_class) == report.agreement.n
    assert report.counters["student_updates"] == STEPS


def test_the_student_takes_any_batch(outcome: Compressed) -> None:
    session = onnxruntime.InferenceSession(str(outcome.artifacts["student.onnx"]))
    for size in (1, 3):
        (logits,) = session.run(None, {"images": np.zeros((size, 1, 32, 32), np.float32)})
        assert logits.shape == (size, 10)


def test_progress_only_rises_and_passes_every_stage(outcome: Compressed, updates: list[Update]) -> None:
    fractions = [update.fraction for update in updates]
    assert fractions == sorted(fractions)
    stages = [update.stage for update in updates if update.kind == "stage"]
    assert list(dict.fromkeys(stages)) == ["load", "inspect", "distill", "export", "verify"]


def test_a_run_stopped_twice_gives_the_same_bytes(outcome: Compressed, teacher: Path, tmp_path: Path) -> None:
    resume_from = None
    for attempt, stop_at in enumerate((8, 16)):
        with pytest.raises(Stopped):
            run(teacher, tmp_path / str(attempt), _stopping_at(stop_at), resume_from=resume_from)
        resume_from = max((tmp_path / str(attempt) / "checkpoints").glob("*.safetensors"))
    resumed = run(teacher, tmp_path / "last", resume_from=resume_from)
    for name in ("student.onnx", "student.safetensors"):
        assert digest(resumed.artifacts[name]) == digest(outcome.artifacts[name])


PAYS, DOES_NOT_PAY = (2.0, 1.9, 1.4), (2.0, 1.9, 1.2)


def in_precision(asked: str) -> DistillSpec:
    settings = a_spec().distillation.model_dump(mode="json", exclude_unset=True)
    return a_spec(distillation={**settings, "compute": {"precision": asked}})


def test_the_plain_runner_computes_in_fp32_and_says_why(outcome: Compressed, teacher: Path, tmp_path: Path) -> None:
    assert outcome.report.precision == PrecisionFacts(value="fp32", because="not-measured")
    explicit = run(teacher, tmp_path, spec=in_precision("fp32"))
    assert explicit.report.precision == PrecisionFacts(value="fp32", because="asked")
    assert digest(explicit.artifacts["student.onnx"]) == digest(outcome.artifacts["student.onnx"])


def test_a_run_in_bf16_goes_on_in_bf16_where_it_does_not_pay(
    outcome: Compressed, teacher: Path, tmp_path: Path
) -> None:
    whole = run(teacher, tmp_path / "whole", bf16_tries=PAYS)
    assert whole.report.precision == PrecisionFacts(value="bf16", because="measured", bf16_tries=list(PAYS))
    assert whole.report.spec["distillation"]["compute"]["precision"] == "auto"
    student = digest(whole.artifacts["student.onnx"])
    assert student != digest(outcome.artifacts["student.onnx"])
    with pytest.raises(Stopped):
        run(teacher, tmp_path / "stopped", _stopping_at(8), bf16_tries=PAYS)
    resume_from = written(tmp_path / "stopped" / "checkpoints")[-1]
    resumed = run(teacher, tmp_path / "resumed", resume_from=resume_from, bf16_tries=DOES_NOT_PAY)
    assert resumed.report.precision == PrecisionFacts(value="bf16", because="checkpoint")
    asked = run(teacher, tmp_path / "asked", spec=in_precision("bf16"))
    assert {digest(done.artifacts["student.onnx"]) for done in (resumed, asked)} == {student}


@pytest.mark.parametrize("tries", [PAYS, ()])
def test_a_continued_run_keeps_its_precision(
    outcome: Compressed, teacher: Path, tmp_path: Path, tries: tuple[float, ...]
) -> None:
    final = written(outcome.artifacts["student.onnx"].parent / "checkpoints")[-1]
    longer = a_spec().distillation.model_dump(mode="json", exclude_unset=True) | {"budget": {"steps": STEPS + 4}}
    continued = run(
        teacher,
        tmp_path,
        spec=a_spec(distillation=longer),
        resume_from=final,
        continued_budget=a_spec().distillation.budget,
        bf16_tries=tries,
    )
    assert continued.report.precision == PrecisionFacts(value="fp32", because="checkpoint")
    assert continued.report.counters["student_updates"] == STEPS + 4


def test_the_export_can_be_repeated_from_the_final_checkpoint(outcome: Compressed, repeated: Repeated) -> None:
    assert repeated.steps == []
    assert digest(repeated.compressed.artifacts["student.onnx"]) == digest(outcome.artifacts["student.onnx"])


def test_one_compression_parses_its_teacher_once(repeated: Repeated) -> None:
    assert repeated.calls == {"read_model": 1, "specialize": 1}


def test_samples_are_written_when_asked_for_and_change_nothing_else(
    outcome: Compressed, with_samples: Compressed, final: Path, teacher: Path, tmp_path: Path
) -> None:
    assert sorted(outcome.artifacts) == ["report.json", "student.onnx", "student.safetensors"]
    assert outcome.report.samples is None
    second = run(teacher, tmp_path, spec=a_spec(export={"samples": True}), resume_from=final)
    assert digest(with_samples.artifacts["samples.png"]) == digest(second.artifacts["samples.png"])
    assert with_samples.report.samples is not None
    assert with_samples.report.samples.sha256 == digest(with_samples.artifacts["samples.png"])
    assert digest(with_samples.artifacts["student.onnx"]) == digest(outcome.artifacts["student.onnx"])


def test_a_report_lists_everything_that_went_in(
    outcome: Compressed, repeated: Repeated, final: Path, teacher: Path
) -> None:
    report = outcome.report
    assert [one.name for one in report.inputs] == ["teacher", "spec", "code"]
    assert report.inputs[0].sha256 == digest(teacher) == report.teacher.file.sha256
    assert check_report([str(outcome.artifacts["report.json"]), "--teacher", str(teacher)]) == 0
    inputs = repeated.compressed.report.inputs
    assert [one.name for one in inputs] == ["teacher", "spec", "code", "checkpoint"]
    assert inputs[3].sha256 == digest(final)


def without_pixels(png: bytes) -> bytes:
    """Return an image without its compressed pixels, in which any two letters may stand together by chance."""
    kept, start = png[:8], 8
    while start < len(png):
        size, kind = int.from_bytes(png[start : start + 4], "big"), png[start + 4 : start + 8]
        kept += b"" if kind == b"IDAT" else png[start : start + 12 + size]
        start += 12 + size
    return kept


def test_what_is_published_says_nothing_of_where_it_was_made(with_samples: Compressed, teacher: Path) -> None:
    files = with_samples.artifacts
    workspace = files["student.onnx"].parent
    for name, content in {name: path.read_bytes() for name, path in files.items()}.items():
        text = without_pixels(content) if name.endswith(".png") else content
        assert traces_in(text, workspace, teacher) == [], name
    model = onnx.load(files["student.onnx"])
    assert (list(model.metadata_props), model.doc_string, model.graph.doc_string) == ([], "", "")
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert str(workspace) in traces_in(f"made at {workspace} by hand".encode(), workspace)  # it can be seen


def test_a_narrowed_teacher_carries_nothing_of_the_files_own_notes(teacher: Path, tmp_path: Path) -> None:
    model = onnx.load(teacher)
    model.doc_string = model.graph.doc_string = "a-canary of somebody"
    model.metadata_props.add(key="a-canary", value="/home-of/somebody")
    for number, node in enumerate(model.graph.node):
        node.doc_string = node.name = f"a-canary {number}"
        node.metadata_props.add(key="stack_trace", value="a-canary")
    noted = tmp_path / "noted.onnx"
    noted.write_bytes(model.SerializeToString())
    spec = a_spec(student={"architecture": "teacher", "width": 0.5})
    outcome = run(noted, tmp_path / "made", spec=spec)
    for name, path in outcome.artifacts.items():
        assert b"a-canary" not in path.read_bytes(), name


def _stopping_at(step: int) -> Callable[[Update], bool]:
    return lambda update: update.kind == "progress" and update.step >= step


def test_a_missed_target_fails_the_job_when_it_should(teacher: Path, tmp_path: Path) -> None:
    accept = {"agreement": {"min": 1.0}, "on_miss": "fail"}
    with pytest.raises(AgreementBelowTarget):
        run(teacher, tmp_path, spec=a_spec(accept=accept))


@pytest.mark.parametrize(
    ("speed", "where"), [(None, "on two ordinary cores"), (worker_speed(threads=1), "on this machine")]
)
def test_a_time_limit_before_the_first_student_names_what_the_plan_says(
    teacher: Path, tmp_path: Path, speed: WorkerSpeed | None, where: str
) -> None:
    spec = a_spec()
    budget = spec.distillation.budget.model_copy(update={"max_seconds": 1e-6})
    hurried = spec.model_copy(update={"distillation": spec.distillation.model_copy(update={"budget": budget})})
    with pytest.raises(TimeLimit) as refused:
        run(teacher, tmp_path, spec=hurried, speed=speed)
    assert re.match(rf"the plan of the whole job is \d+ seconds {where}; raise", refused.value.hint or "")


def test_a_low_agreement_is_said_and_the_student_delivered(outcome: Compressed) -> None:
    assert outcome.report.agreement.value < 0.9
    assert "agreement-low" in [warning.code for warning in outcome.report.warnings]


def test_a_student_that_does_not_fit_is_refused_before_training(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(StudentError):
        run(teacher, tmp_path, spec=a_spec(student={"architecture": "no-such-net"}))


def test_the_command_line_writes_three_files(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TUNED, "1")  # this process cannot be replaced
    spec = tmp_path / "spec.json"
    spec.write_text(a_spec().model_dump_json())
    output = tmp_path / "out" / "small.onnx"
    assert main([str(teacher), "-o", str(output), "--spec", str(spec), "--threads", "1"]) == 0
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "small.onnx",
        "small.report.json",
        "small.safetensors",
    ]
    assert json.loads((output.parent / "small.report.json").read_text())["student"]["architecture"] == "lenet5_half"
    assert "agreement" in capsys.readouterr().out


def test_the_command_line_says_what_is_wrong(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TUNED, "2")
    output = ["-o", str(tmp_path / "out" / "student.onnx")]
    assert main([str(teacher), *output, "--student", "lenet5_half", "--set", "distillation.sed=1"]) == 2
    assert "/distillation/sed" in capsys.readouterr().err
    assert main([str(teacher), *output, "--student", "no-such-net"]) == 1
    assert "student-infeasible" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("stage", ["export", "verify"])
def test_a_job_stops_between_the_pieces_of_its_last_stages_and_repeats_them(
    stage: str, teacher: Path, tmp_path: Path, outcome: Compressed
) -> None:
    stopped, resumed = tmp_path / "stopped", tmp_path / "resumed"

    def stops(update: Update) -> bool:
        if (update.kind, update.stage) == ("stage", stage):
            time.sleep(BEAT_SECONDS)  # so that the stage's first beat is passed on, however short the stage is
        return (update.kind, update.stage) == ("beat", stage)

    with pytest.raises(Stopped):
        run(teacher, stopped, stops)
    last = written(stopped / "checkpoints")[-1]
    again = run(teacher, resumed, resume_from=last)
    assert again.artifacts["student.onnx"].read_bytes() == outcome.artifacts["student.onnx"].read_bytes()
