"""The path of one job, from a teacher file to a student that can be trusted: load, inspect, distill, export, verify.

What the runner and `python -m dfkd_core` both do. All that it writes lies in `workspace`; all that it says goes
through `on_step`. A run that is resumed repeats the short stages and continues the long one from its checkpoint.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dfkd_core
from dfkd_core.errors import AgreementBelowTarget, TeacherError
from dfkd_core.images.batch import Batch
from dfkd_core.images.preview_png import samples_png
from dfkd_core.inspection import resolve
from dfkd_core.inspection.inspection import Inspection, inspect_file
from dfkd_core.loop.checkpoint import CheckpointWriter
from dfkd_core.loop.distill import Distilled, distill
from dfkd_core.networks.teacher import Teacher
from dfkd_core.notice import Notice
from dfkd_core.output.evaluate import evaluate, latency, versions
from dfkd_core.output.onnx_export import PARITY_BATCHES, check_parity, export_onnx, save_pruned_weights, save_weights
from dfkd_core.output.provenance import file_facts, inputs
from dfkd_core.progress import OnStep, Update
from dfkd_core.report import (
    Agreement,
    FileFacts,
    InputFacts,
    Parity,
    Report,
    StudentFacts,
    TeacherFacts,
    TeacherVerification,
    compression,
)
from dfkd_core.rng import Streams
from dfkd_core.spec.config import Budget, DistillSpec, TeacherSpec
from dfkd_core.students.prepare import Student, prepare_student
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import verification_facts, verify_teacher

STAGE_SHARES = {"load": 0.01, "inspect": 0.02, "distill": 0.91, "export": 0.03, "verify": 0.03}
"""Share of the whole job that each stage is; distillation is nearly all of it."""

LOW_AGREEMENT = 0.9  # below this, a student that nobody set a target for leaves with a warning
STUDENT_ONNX, STUDENT_WEIGHTS, REPORT = "student.onnx", "student.safetensors", "report.json"
SAMPLES = "samples.png"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished job leaves in its workspace."""

    artifacts: dict[str, Path]  # name → file
    report: Report


def compress(
    teacher_path: Path,
    spec: DistillSpec,
    *,
    workspace: Path,
    threads: int,
    device: str,
    on_step: OnStep,
    resume_from: Path | None = None,
    continued_budget: Budget | None = None,
    checkpoint_seconds: float = 30.0,
) -> Outcome:
    """Distil the student that `spec` asks for and write it, its weights and its report into `workspace`.

    Equal file, spec, build and `threads` give equal bytes of the student on CPU. Raises any DfkdError.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    with _reproducible(threads):
        stages = _Stages(on_step)
        case = _load(teacher_path, spec, stages, device=torch.device(device))
        depth = _inspect(case, stages)
        resume = partial(distill, resume_from=resume_from, continued_budget=continued_budget)
        distilled = _distill(case, stages, workspace, resume, checkpoint_seconds=checkpoint_seconds)
        _export(case, distilled, stages, workspace)
        checkpoint = None if resume_from is None else file_facts(resume_from)
        given = inputs(file_facts(teacher_path), case.spec.model_dump(mode="json"), checkpoint)
        report = _verify(case, distilled, stages, workspace, depth=depth, given=given, threads=threads)
    (workspace / REPORT).write_text(report.to_json(), encoding="utf-8")
    names = [STUDENT_ONNX, STUDENT_WEIGHTS, REPORT, *([SAMPLES] if case.spec.export.samples else [])]
    return Outcome(artifacts={name: workspace / name for name in names}, report=report)


@contextmanager
def _reproducible(threads: int) -> Iterator[None]:
    """Pinned thread count and deterministic algorithms inside; the process's own settings afterwards."""
    threads_before = torch.get_num_threads()
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic_before)
        torch.set_num_threads(threads_before)


@dataclass(slots=True)
class _Stages:
    """Says which stage a job is in and how far, and times each."""

    on_step: OnStep
    durations: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage from its announcement to its end."""
        started = time.monotonic()
        self.on_step(Update(kind="stage", stage=name, fraction=self.start_of(name)))
        try:
            yield
        finally:
            self.durations[name] = round(time.monotonic() - started, 3)

    def start_of(self, name: str) -> float:
        """Share of the job that lies before a stage."""
        earlier = list(STAGE_SHARES)[: list(STAGE_SHARES).index(name)]
        return sum(STAGE_SHARES[stage] for stage in earlier)

    def during_distillation(self, update: Update) -> bool:
        """Pass an update of the loop on, its fraction that of the whole job."""
        share = self.start_of("distill") + STAGE_SHARES["distill"] * update.fraction
        return self.on_step(replace(update, fraction=share))

    def tell_depth(self, found: dict[str, Any]) -> None:
        """Tell what running the teacher showed."""
        data = {**found, "checked_by": dfkd_core.__version__}
        self.on_step(Update(kind="depth", stage="inspect", fraction=self.start_of("inspect"), data=data))

    def warn(self, warning: Notice, *, stage: str) -> None:
        """Tell a warning through the seam."""
        data = warning.model_dump()
        self.on_step(Update(kind="warning", stage=stage, fraction=self.start_of(stage), data=data))


@dataclass(slots=True)
class _Case:
    """Everything about one job that is known before training starts."""

    teacher_path: Path
    spec: DistillSpec  # resolved
    inspection: Inspection
    teacher: Teacher
    student: Student
    streams: Streams
    device: torch.device
    warnings: list[Notice]


def _load(teacher_path: Path, spec: DistillSpec, stages: _Stages, *, device: torch.device) -> _Case:
    with stages.stage("load"):
        inspection = inspect_file(teacher_path, spec.teacher)
        spec, description, warnings = resolve.resolve(spec, inspection)
        streams = Streams(spec.distillation.seed)
        teacher = load_teacher(teacher_path, spec.teacher)
        student = prepare_student(
            spec.student,
            description,
            teacher,
            teacher_parameters=inspection.parameters,
            normalised=spec.distillation.training.renormalise,
            streams=streams,
        )
        student.network.to(device)
        return _Case(
            teacher_path=teacher_path,
            spec=spec,
            inspection=inspection,
            teacher=teacher.to(device),
            student=student,
            streams=streams,
            device=device,
            warnings=[*warnings, *student.warnings],
        )


def _inspect(case: _Case, stages: _Stages) -> TeacherVerification:
    with stages.stage("inspect"):
        try:
            depth = verify_teacher(case.teacher, case.teacher_path, generator=case.streams["depth"])
        except TeacherError as error:
            stages.tell_depth({"passed": False, "code": error.code, "detail": error.detail, "hint": error.hint})
            raise
        found = verification_facts(depth)
        stages.tell_depth({"passed": True, "measured": found.model_dump()})
        return found


def _warn(case: _Case, stages: _Stages, warning: Notice, *, stage: str) -> None:
    case.warnings.append(warning)
    stages.warn(warning, stage=stage)


def _distill(
    case: _Case, stages: _Stages, workspace: Path, resume: Callable[..., Distilled], *, checkpoint_seconds: float
) -> Distilled:
    with stages.stage("distill"):
        facts = {"student-architecture": case.student.name}
        writer = CheckpointWriter(workspace / "checkpoints", every_seconds=checkpoint_seconds, fingerprint=facts)
        distilled = resume(
            case.teacher,
            case.student.network,
            case.spec.distillation,
            on_step=stages.during_distillation,
            checkpoints=writer,
        )
        for warning in distilled.warnings:
            _warn(case, stages, warning, stage="distill")
        return distilled


def _export(case: _Case, distilled: Distilled, stages: _Stages, workspace: Path) -> None:
    with stages.stage("export"):
        shape = case.teacher.input_space.shape
        student = distilled.student.cpu().eval()
        export_onnx(student, workspace / STUDENT_ONNX, input_shape=shape, opset=case.spec.export.opset)
        if case.student.description is None:
            save_pruned_weights(student, workspace / STUDENT_WEIGHTS, width=case.student.width)
        else:
            save_weights(student, workspace / STUDENT_WEIGHTS, case.student.description)
        if case.spec.export.samples:
            low, high = case.teacher.input_space.bounds()
            audit = distilled.audit
            png = samples_png(audit.images.cpu(), audit.teacher_logits.cpu(), low=low, high=high)
            (workspace / SAMPLES).write_bytes(png)


def _verify(
    case: _Case,
    distilled: Distilled,
    stages: _Stages,
    workspace: Path,
    *,
    depth: TeacherVerification,
    given: list[InputFacts],
    threads: int,
) -> Report:
    with stages.stage("verify"):
        student_path = workspace / STUDENT_ONNX
        audit = Batch(images=distilled.audit.images.cpu(), teacher_logits=distilled.audit.teacher_logits.cpu())
        parity = check_parity(distilled.student, student_path, images_by_batch=_fresh_batches(case, audit.images))
        agreement = evaluate(distilled.student, audit)
        _judge(case, stages, agreement)
        teacher, student = _teacher_facts(case, depth), _student_facts(case, workspace)
        samples = file_facts(workspace / SAMPLES) if case.spec.export.samples else None
    return _report(
        case,
        distilled,
        stages,
        facts=(teacher, student),
        given=given,
        agreement=agreement,
        parity=parity,
        samples=samples,
        threads=threads,
    )


def _fresh_batches(case: _Case, audit_images: Tensor) -> list[Tensor]:
    """Batches that nothing has seen: synthetic images under new pixel noise, (N, C, H, W) for each size."""
    generator = case.streams["parity"]
    batches = []
    for size in PARITY_BATCHES:
        chosen = torch.randint(len(audit_images), (size,), generator=generator)
        images = audit_images[chosen]
        batches.append(images + 0.1 * torch.randn(images.shape, generator=generator))
    return batches


def _judge(case: _Case, stages: _Stages, agreement: Agreement) -> None:
    """Hold the student against the target that was set for it, or against a low one where none was."""
    accept = case.spec.accept
    target = accept.agreement.min if accept.agreement is not None else LOW_AGREEMENT
    if agreement.value >= target:
        return
    code = "agreement-low" if accept.agreement is None else AgreementBelowTarget.code
    detail = f"the student agrees with its teacher on {agreement.value:.4f} of the audit set, less than {target:.4f}"
    hint = "give distillation.budget more steps, or choose a larger student"
    if accept.agreement is not None and accept.on_miss == "fail":
        raise AgreementBelowTarget(detail, hint=hint)
    _warn(case, stages, Notice(code=code, detail=detail, hint=hint), stage="verify")


def _teacher_facts(case: _Case, depth: TeacherVerification) -> TeacherFacts:
    shape, is_onnx = case.teacher.input_space.shape, case.inspection.format == "onnx"
    return TeacherFacts(
        file=file_facts(case.teacher_path),
        format="onnx" if is_onnx else "safetensors",
        parameters=case.inspection.parameters,
        macs=case.inspection.macs,
        latency=latency(case.teacher_path, shape) if is_onnx else None,
        depth=depth,
    )


def _student_facts(case: _Case, workspace: Path) -> StudentFacts:
    student, path = case.student, workspace / STUDENT_ONNX
    return StudentFacts(
        architecture=student.name,
        width=student.width,
        options=student.options,
        init=student.init,
        parameters=student.parameters,
        macs=_macs(student, path),
        onnx=file_facts(path),
        safetensors=file_facts(workspace / STUDENT_WEIGHTS),
        latency=latency(path, case.teacher.input_space.shape),
    )


def _macs(student: Student, path: Path) -> int:
    """From the description, or read off the exported graph where there is none."""
    if student.description is not None:
        return student.description.macs
    found = inspect_file(path, TeacherSpec()).macs
    assert found is not None  # the exported file fixes the size of its images
    return found


def _report(
    case: _Case,
    distilled: Distilled,
    stages: _Stages,
    *,
    facts: tuple[TeacherFacts, StudentFacts],
    given: list[InputFacts],
    agreement: Agreement,
    parity: Parity,
    samples: FileFacts | None,
    threads: int,
) -> Report:
    teacher, student = facts
    return Report(
        versions=versions(),
        inputs=given,
        spec=case.spec.model_dump(mode="json"),
        seed=case.spec.distillation.seed,
        threads=threads,
        device=_device_name(case.device),
        teacher=teacher,
        student=student,
        ratios=compression(teacher, student),
        agreement=agreement,
        parity=parity,
        samples=samples,
        published_step=distilled.published_step,
        probe_agreement=distilled.probe_agreement,
        curve=distilled.curve,
        counters=_counters(distilled),
        memory_bytes=distilled.memory_bytes,
        warnings=case.warnings,
        durations=stages.durations,
    )


def _counters(distilled: Distilled) -> dict[str, int]:
    names = ("student_updates", "images_synthesized", "teacher_forwards", "rollbacks")
    found: dict[str, Any] = {name: getattr(distilled, name) for name in names}
    return found


def _device_name(device: torch.device) -> str:
    return "cpu" if device.type == "cpu" else f"cuda: {torch.cuda.get_device_name(device)}"
