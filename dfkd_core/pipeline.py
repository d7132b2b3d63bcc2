"""The stages of one job, from a teacher file to a verified student: load, inspect, distill, export, verify.

The worker's runner and `python -m dfkd_core` both call `compress`. All files are written into `workspace`; all
progress goes through `on_step`. A resumed run repeats the short stages and continues the distillation from its
checkpoint.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import dfkd_core
from dfkd_core.errors import AgreementBelowTarget, TeacherError, TimeLimit
from dfkd_core.images.preview_png import most_certain, samples_png
from dfkd_core.inspection import resolve
from dfkd_core.inspection.input_space.notices import DOUBTFUL
from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.inspection.job_facts import job_facts
from dfkd_core.loop.checkpoint import CheckpointWriter, precision_of
from dfkd_core.loop.distill import Distilled, distill
from dfkd_core.networks.precision import Engine
from dfkd_core.networks.teacher import Teacher
from dfkd_core.notice import Notice
from dfkd_core.output.audit_set import CHUNK, AuditSet
from dfkd_core.output.evaluate import evaluate, versions
from dfkd_core.output.onnx_export import PARITY_BATCHES, check_parity, export_onnx, save_pruned_weights, save_weights
from dfkd_core.output.provenance import file_facts, inputs
from dfkd_core.output.report_builder import counters, device_name, student_facts, teacher_facts
from dfkd_core.planning.forecast import JobFacts, forecast
from dfkd_core.planning.precision_choice import are_depthwise, choose_precision
from dfkd_core.planning.reference import REFERENCE
from dfkd_core.planning.worker_speed import WorkerSpeed
from dfkd_core.progress import OnStep
from dfkd_core.pulse import Pulse
from dfkd_core.report import Agreement, InputFacts, PrecisionFacts, Report, TeacherVerification, compression
from dfkd_core.rng import Streams, reproducible
from dfkd_core.spec.config import Budget, DistillConfig, DistillSpec
from dfkd_core.stages import StageReporter
from dfkd_core.students.prepare import Student, prepare_student
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.original import original_of
from dfkd_core.teachers.verification import verification_facts, verify_teacher

LOW_AGREEMENT = 0.9  # a student below this gets a warning, if the spec sets no target
STUDENT_ONNX, STUDENT_WEIGHTS, REPORT = "student.onnx", "student.safetensors", "report.json"
SAMPLES = "samples.png"


@dataclass(frozen=True, slots=True)
class Compressed:
    """The files and the report of a finished job."""

    artifacts: dict[str, Path]  # name → file
    report: Report


@dataclass(slots=True)
class _Job:
    """The state that the stages of one job share: all that is known before the training, and the warnings."""

    teacher_path: Path
    workspace: Path
    stages: StageReporter
    threads: int
    spec: DistillSpec  # resolved
    config: DistillConfig  # its distillation as it is computed, with a precision
    precision: PrecisionFacts
    inspection: Inspection
    teacher: Teacher
    verification: TeacherVerification
    student: Student
    streams: Streams
    device: torch.device
    warnings: list[Notice] = field(default_factory=list)

    def warn(self, warning: Notice, *, stage: str) -> None:
        """Keep a warning for the report, and send it as an update."""
        self.warnings.append(warning)
        self.stages.tell("warning", stage, warning.model_dump())


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
    speed: WorkerSpeed | None = None,
    bf16_tries: Sequence[float] = (),
    clock: Callable[[], float] = time.monotonic,
    pulse: Pulse | None = None,
) -> Compressed:
    """Distil the student that `spec` asks for and write it, its weights and its report into `workspace`.

    On a CPU, equal file, spec, build, `threads` and precision give a student of equal bytes. `speed` is this machine's,
    if it is known; only the time left that is told until more was measured depends on it. `bf16_tries` tell how many
    times faster bfloat16 was here: they decide on the precision if the spec leaves it open and the run does not go on
    from a checkpoint. `clock` gives the seconds in which the job is measured and limited. `pulse` counts the work of
    the distillation, and others may read it meanwhile.

    Raises:
        DfkdError: the job cannot be done, or was stopped; the subclass says why.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    with reproducible(threads):
        limit = spec.distillation.budget.max_seconds
        stages = StageReporter(on_step, now=clock, pulse=pulse or Pulse(now=clock), limit_seconds=limit)
        known, where = speed or REFERENCE, torch.device(device)
        choose = partial(_choose_precision, tries=bf16_tries, resume_from=resume_from)
        try:
            job = _prepare(teacher_path, spec, workspace, stages, choose, threads=threads, device=where, speed=known)
            loop = partial(distill, resume_from=resume_from, continued_budget=continued_budget)
            distilled = _distill(job, loop, checkpoint_seconds=checkpoint_seconds)
        except TimeLimit as error:
            where_planned = "on two ordinary cores" if speed is None else "on this machine"
            raise _with_plan(error, stages.planned_seconds, where_planned) from error
        _export(job, distilled)
        checkpoint = None if resume_from is None else file_facts(resume_from)
        input_facts = inputs(file_facts(teacher_path), job.spec.model_dump(mode="json"), checkpoint)
        report = _verify(job, distilled, input_facts)
    (workspace / REPORT).write_text(report.to_json(), encoding="utf-8")
    names = [STUDENT_ONNX, STUDENT_WEIGHTS, REPORT, *([SAMPLES] if job.spec.export.samples else [])]
    return Compressed(artifacts={name: workspace / name for name in names}, report=report)


def _prepare(
    teacher_path: Path,
    spec: DistillSpec,
    workspace: Path,
    stages: StageReporter,
    choose: Callable[[DistillConfig, bool], PrecisionFacts],
    *,
    threads: int,
    device: torch.device,
    speed: WorkerSpeed,
) -> _Job:
    """Run the stages load and inspect.

    The stage load reads the file once, resolves the spec and builds teacher and student. The stage inspect runs the
    teacher.

    Raises:
        DfkdError: the spec or the teacher is refused.
    """
    pulse = Pulse(stages)
    with stages.stage("load"):
        inspection, parsed = inspect_with_input_space(teacher_path, spec.teacher)
        resolved, description, warnings = resolve.resolve(spec, inspection)
        for warning in warnings:
            if warning.code == DOUBTFUL:  # here the very values that were told are looked into, not those like them
                stages.tell("warning", "load", warning.model_dump())
        facts = job_facts(resolved, inspection, description)
        depthwise = device.type == "cpu" and facts is not None and are_depthwise((facts.teacher, facts.student))
        precision = choose(resolved.distillation, depthwise)
        config = resolved.distillation.computed_in(precision.value)
        if facts is not None:
            _foresee(stages, config, facts, speed)
        streams = Streams(resolved.distillation.seed)
        teacher = load_teacher(teacher_path, resolved.teacher, parsed=parsed)
        teacher = teacher.with_precision(Engine(resolved.distillation.compute, pulse).in_fp32())
        student = prepare_student(
            resolved.student,
            description,
            teacher,
            original_of(teacher, parsed),
            teacher_parameters=inspection.parameters,
            normalised=resolved.distillation.training.renormalise,
            streams=streams,
        )
        student.network.to(device)
        teacher = teacher.to(device)
    with stages.stage("inspect"):
        try:
            found = verify_teacher(teacher, teacher_path, generator=streams["depth"], parsed=parsed)
        except TeacherError as error:
            refusal = {"code": error.code, "detail": error.detail, "hint": error.hint}
            stages.tell("depth", "inspect", {"passed": False, **refusal, "checked_by": dfkd_core.__version__})
            raise
        verification = verification_facts(found)
        measured = {"passed": True, "measured": verification.model_dump(), "checked_by": dfkd_core.__version__}
        stages.tell("depth", "inspect", measured)
    return _Job(
        teacher_path=teacher_path,
        workspace=workspace,
        stages=stages,
        threads=threads,
        spec=resolved,
        config=config,
        precision=precision,
        inspection=inspection,
        teacher=teacher,
        verification=verification,
        student=student,
        streams=streams,
        device=device,
        warnings=warnings,
    )


def _choose_precision(
    config: DistillConfig,
    depthwise: bool,
    *,
    tries: Sequence[float],
    resume_from: Path | None,
) -> PrecisionFacts:
    """Return the precision of the run: what is asked for, that of the checkpoint, or what pays here.

    Raises:
        CheckpointMismatch: the checkpoint is damaged.
    """
    recorded = None if resume_from is None else precision_of(resume_from)
    return choose_precision(config.compute.precision, tries=tries, recorded=recorded, depthwise=depthwise)


def _foresee(stages: StageReporter, config: DistillConfig, facts: JobFacts, speed: WorkerSpeed) -> None:
    """Tell the reporter what each phase of the job is predicted to take."""
    found = forecast(config, facts, speed)
    stages.foresee(
        found.seconds,
        {work.phase: float(work.units) for work in found.work.phases},
        inverts=config.method_options.optimises_images,
    )


def _with_plan(error: TimeLimit, planned_seconds: float | None, where: str) -> TimeLimit:
    """Return the error with a hint that names what the whole job is planned to take, and where."""
    if planned_seconds is None:
        return error
    hint = f"the plan of the whole job is {planned_seconds:.0f} seconds {where}; {error.hint}"
    return TimeLimit(error.detail, hint=hint, pointer=error.pointer)


def _distill(job: _Job, loop: Callable[..., Distilled], *, checkpoint_seconds: float) -> Distilled:
    with job.stages.stage("distill"):
        facts = {"student-architecture": job.student.name}
        writer = CheckpointWriter(job.workspace / "checkpoints", every_seconds=checkpoint_seconds, fingerprint=facts)
        distilled = loop(
            job.teacher,
            job.student.network,
            job.config,
            on_step=job.stages.during_distillation,
            checkpoints=writer,
            pulse=job.stages.pulse,
            clock=job.stages.now,
            spent_seconds=job.stages.elapsed_seconds,
            reserve=lambda: job.stages.clock.reserve_seconds,
        )
        for warning in distilled.warnings:
            job.warn(warning, stage="distill")
        return distilled


def _export(job: _Job, distilled: Distilled) -> None:
    with job.stages.stage("export"):
        student = distilled.student.cpu().eval()
        interface, space = job.teacher.interface, job.teacher.input_space
        path, pulse = job.workspace / STUDENT_ONNX, job.teacher.engine.pulse
        export_onnx(student, path, interface, space, opset=job.spec.export.opset, pulse=pulse)
        if job.student.description is None:
            save_pruned_weights(student, job.workspace / STUDENT_WEIGHTS, width=job.student.width)
        else:
            save_weights(student, job.workspace / STUDENT_WEIGHTS, job.student.description)
        if job.spec.export.samples:
            low, high = space.bounds()
            logits = distilled.audit.teacher_logits
            shown = most_certain(logits, side=max(space.shape[1:]))
            png = samples_png(distilled.audit.take(shown), logits[shown], low=low, high=high)
            (job.workspace / SAMPLES).write_bytes(png)


def _verify(job: _Job, distilled: Distilled, input_facts: list[InputFacts]) -> Report:
    """Compare the exported file with PyTorch and the student with its teacher, and build the report."""
    with job.stages.stage("verify"):
        onnx, safetensors = job.workspace / STUDENT_ONNX, job.workspace / STUDENT_WEIGHTS
        space, interface = job.teacher.input_space, job.teacher.interface
        audit = AuditSet.of(distilled.audit, job.teacher, device=job.device)
        fresh = _fresh_batches(job, audit)
        pulse = job.teacher.engine.pulse
        parity = check_parity(distilled.student, onnx, interface, space, images_by_batch=fresh, pulse=pulse)
        chunk = job.spec.distillation.compute.at_a_time(CHUNK)
        agreement = evaluate(onnx, audit, interface, space, threads=job.threads, chunk=chunk, pulse=pulse)
        _judge(job, agreement)
        teacher = teacher_facts(job.teacher_path, job.inspection, job.verification, space.shape, pulse=pulse)
        student = student_facts(
            job.student, onnx=onnx, safetensors=safetensors, interface=interface, space=space, pulse=pulse
        )
        samples = file_facts(job.workspace / SAMPLES) if job.spec.export.samples else None
    return Report(
        versions=versions(),
        inputs=input_facts,
        spec=job.spec.model_dump(mode="json"),
        seed=job.spec.distillation.seed,
        threads=job.threads,
        device=device_name(job.device),
        precision=job.precision,
        teacher=teacher,
        student=student,
        ratios=compression(teacher, student),
        agreement=agreement,
        parity=parity,
        samples=samples,
        published_step=distilled.published_step,
        probe_agreement=distilled.probe_agreement,
        curve=distilled.curve,
        counters=counters(distilled),
        memory_bytes=distilled.memory_bytes,
        warnings=job.warnings,
        durations=job.stages.durations,
    )


def _fresh_batches(job: _Job, audit: AuditSet) -> Iterator[Tensor]:
    """Yield unseen images: audit images with new pixel noise, one batch (N, C, H, W) for each of PARITY_BATCHES.

    Large images come in smaller batches.
    """
    generator = job.streams["parity"]
    compute = job.spec.distillation.compute
    for size in sorted({compute.at_a_time(size) for size in PARITY_BATCHES}):
        images = audit.take(torch.randint(len(audit), (size,), generator=generator))
        yield images + 0.1 * torch.randn(images.shape, generator=generator)


def _judge(job: _Job, agreement: Agreement) -> None:
    """Warn if the student misses its target or, without a target, has less agreement than LOW_AGREEMENT.

    Raises:
        AgreementBelowTarget: the student misses its target, and the spec says that this fails the job.
    """
    accept = job.spec.accept
    target = accept.agreement.min if accept.agreement is not None else LOW_AGREEMENT
    if agreement.value >= target:
        return
    code = "agreement-low" if accept.agreement is None else AgreementBelowTarget.code
    detail = f"the student agrees with its teacher on {agreement.value:.4f} of the audit set, less than {target:.4f}"
    hint = "Raise distillation.budget.effort or distillation.budget.steps, or choose a larger student."
    if accept.agreement is not None and accept.on_miss == "fail":
        raise AgreementBelowTarget(detail, hint=hint)
    job.warn(Notice(code=code, detail=detail, hint=hint), stage="verify")
