"""What clients see of the ledger's values. Our client parses with the same classes, ignoring what is new."""

from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from dfkd_core.inspection.suitability import Suitability, suitability
from jobs.models import DEPTH, ArtifactRef, BestStudent, Event, Job, JobError, JobState, JobWarning, TeacherRef
from service.intake.inspection_cache import inspection_of
from service.problems.table import TABLE

Json = dict[str, Any]  # Any: JSON values


class View(BaseModel):
    """A representation. New fields may appear; clients ignore what they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", serialize_by_alias=True)


class ProgressView(View):
    """How far a job is."""

    fraction: float = Field(description="Share of the whole job that is done, 0 to 1; never falls.")
    step: int = Field(description="Student updates done.")
    total_steps: int = Field(description="Student updates in all; 0 until known.")
    eta_seconds: float | None = Field(description="Estimate of the running time left; null until there is one.")
    agreement: float | None = Field(description="Agreement of the published student with its teacher, on the probe.")
    message: str | None = Field(description="One line for people.")


class DurationsView(View):
    """How long a job waited and ran, in seconds."""

    queued_seconds: float = Field(description="From acceptance to the first claim, or until now.")
    running_seconds: float = Field(description="In all attempts together; waiting in between is not counted.")


class BestView(View):
    """The student that would be delivered if the job stopped now."""

    step: int = Field(description="Student update at which it was published.")
    agreement: float = Field(
        description="Its newest score: agreement with the teacher on the synthetic probe; equal to progress.agreement."
    )


class ErrorView(View):
    """Why a job failed."""

    code: str = Field(description="Permanent, kebab-case; GET /problems/{code} describes it.")
    detail: str = Field(description="What happened.")
    hint: str | None = Field(None, description="What to do about it.")
    stage: str | None = Field(None, description="The stage in which it happened.")
    attempt: int | None = Field(None, description="The attempt in which it happened.")


class WarningView(View):
    """Something worth knowing that did not stop the job."""

    code: str = Field(description="Permanent, kebab-case.")
    detail: str = Field(description="What it means.")
    hint: str | None = Field(None, description="What to do about it.")


class TeacherView(View):
    """An uploaded teacher: immutable, known by the digest of its bytes."""

    id: str = Field(description="sha256 of the file.")
    bytes: int = Field(description="Size.")
    format: str = Field(description="onnx or safetensors, told from the content.")
    created_at: datetime = Field(description="When it was first uploaded.")
    inspection: Json = Field(description="What the structural inspection found.")
    methods: Suitability | None = Field(
        None, description="Methods that it can serve, those that it cannot and why, and what auto would choose."
    )
    depth: Json | None = Field(
        None,
        description="What running it showed in its newest job: passed, and measured (parity with ONNX Runtime, "
        "gradient, dead inputs, logits or log-probabilities) or code, detail and hint; null before the first.",
    )


class ArtifactView(View):
    """One file of a finished job."""

    name: str = Field(description="student.onnx, student.safetensors, report.json or samples.png.")
    sha256: str = Field(description="Digest of the bytes; the ETag of the download.")
    bytes: int = Field(description="Size.")
    media_type: str = Field(description="What the bytes are.")
    url: str = Field(description="Where it is downloaded.")


class ArtifactList(View):
    """The files of a job; empty until it succeeded."""

    artifacts: list[ArtifactView]


class EventView(View):
    """One line of a job's history."""

    seq: int = Field(description="Rises within a job; pass the last one seen as `after`.")
    kind: str = Field(description="created, claimed, stage, published, ... New kinds may appear.")
    at: datetime = Field(description="When it was written.")
    fence: int = Field(description="Number of the claim under which it was written; 0 outside claims.")
    data: Json = Field(description="What the kind brings along.")


class EventPage(View):
    """Events in the order in which they happened."""

    events: list[EventView]
    last_seq: int = Field(description="Pass it as `after` to go on; equal to `after` when nothing was new.")
    terminal: bool = Field(description="The job has finished: after an empty page nothing will follow.")


class LinksView(View):
    """Where to go from here; all relative to the service's root."""

    self: str
    events: str
    artifacts: str
    cancel: str
    pause: str
    resume: str
    retry: str
    continue_: str = Field(alias="continue")


class JobView(View):
    """One teacher in, one student out."""

    id: str = Field(description="Random UUID, made by the service.")
    name: str | None = Field(description="The caller's name for it.")
    labels: dict[str, str] = Field(description="The caller's labels.")
    state: str = Field(description="queued, running, pausing, paused, cancelling, succeeded, failed or cancelled.")
    terminal: bool = Field(description="It will not change any more.")
    stage: str = Field(
        description="queued or paused, load, inspect, distill, export, verify, done. New ones may appear."
    )
    queue_position: int | None = Field(description="1 is next; null unless queued.")
    progress: ProgressView
    best: BestView | None = Field(description="The published student, while there is one.")
    attempt: int = Field(description="How often it was started and charged.")
    warnings: list[WarningView]
    error: ErrorView | None = Field(description="Why it failed; null unless failed.")
    durations: DurationsView
    created_at: datetime = Field(description="When it was accepted.")
    updated_at: datetime = Field(description="When it last changed.")
    started_at: datetime | None = Field(description="When it was first claimed.")
    finished_at: datetime | None = Field(description="When it became terminal.")
    heartbeat_at: datetime | None = Field(description="When its worker was last heard of.")
    revision: int = Field(description="Rises with every change.")
    retried_from: str | None = Field(None, description="The job of which this is another try.")
    continued_from: str | None = Field(None, description="The job from whose last checkpoint this one goes on.")
    traceparent: str | None = Field(None, description="Trace (W3C) to which POST /jobs said it belongs.")
    spec: Json = Field(
        description="What was asked for, every default filled in; as stored, where another version took the job."
    )
    teacher: TeacherView
    artifacts: list[ArtifactView] = Field(description="What can be downloaded; empty until succeeded.")
    links: LinksView


class AgreementView(View):
    """The agreement in a report: measured on the audit set, which chose nothing."""

    value: float = Field(description="Share of images on which student and teacher decide alike.")
    interval: tuple[float, float] = Field(description="Exact confidence interval of `value`.")
    confidence: float = Field(description="Level of the interval.")
    n: int = Field(description="Images.")


class ReportView(View):
    """What our client reads in report.json."""

    agreement: AgreementView


class JobList(View):
    """One page of jobs, newest first."""

    jobs: list[JobView]
    next_cursor: str | None = Field(description="Pass it as `cursor`; null on the last page.")


V = TypeVar("V", bound=View)


def job_view(job: Job, *, queue_position: int | None = None, at: datetime | None = None) -> JobView:
    """A job as its client sees it at the time `at` (now)."""
    running = _running_seconds(job, at or datetime.now(UTC))
    return JobView(
        id=job.id,
        name=job.spec.name,
        labels=job.spec.labels,
        state=job.public_state,
        terminal=job.state.terminal,
        stage=job.progress.stage,
        queue_position=queue_position,
        progress=_progress_view(job, running),
        best=_same(BestView, job.best),
        attempt=job.attempt,
        warnings=[warning_view(warning) for warning in job.warnings],
        error=_same(ErrorView, job.error),
        durations=DurationsView(
            queued_seconds=_queued_seconds(job, at or datetime.now(UTC)), running_seconds=round(running, 3)
        ),
        created_at=job.created_at,
        updated_at=job.updated_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        heartbeat_at=job.heartbeat_at,
        revision=job.revision,
        retried_from=job.retried_from,
        continued_from=job.continued_from,
        traceparent=job.traceparent,
        spec=job.spec.model_dump(mode="json"),
        teacher=teacher_view(job.teacher),
        artifacts=[artifact_view(job.id, artifact) for artifact in job.artifacts],
        links=_links(job.id),
    )


def teacher_view(teacher: TeacherRef) -> TeacherView:
    """A teacher with what follows from its inspection."""
    found = inspection_of(teacher)
    told = teacher.model_dump()
    depth = told["inspection"].pop(DEPTH, None)
    return TeacherView.model_validate({**told, "methods": found and suitability(found), "depth": depth})


def warning_view(warning: JobWarning) -> WarningView:
    return WarningView.model_validate(warning.model_dump())


def artifact_view(job_id: str, artifact: ArtifactRef) -> ArtifactView:
    return ArtifactView(**artifact.model_dump(), url=f"/jobs/{job_id}/artifacts/{artifact.name}")


def event_view(event: Event) -> EventView:
    return EventView.model_validate(event.model_dump())


def _same(view: type[V], value: BestStudent | JobError | None) -> V | None:
    return None if value is None else view.model_validate(value.model_dump())


def _links(job_id: str) -> LinksView:
    root = f"/jobs/{job_id}"
    names = (field.alias or name for name, field in LinksView.model_fields.items())
    return LinksView.model_validate({name: root if name == "self" else f"{root}/{name}" for name in names})


def _queued_seconds(job: Job, now: datetime) -> float:
    until = job.started_at or job.finished_at or now
    return round(max(0.0, (until - job.created_at).total_seconds()), 3)


def _running_seconds(job: Job, now: datetime) -> float:
    """Finished attempts, and the one that is under way."""
    current = 0.0
    if job.state is JobState.RUNNING and job.claimed_at is not None:
        current = max(0.0, (now - job.claimed_at).total_seconds())
    return job.running_seconds + current


def _progress_view(job: Job, running_seconds: float) -> ProgressView:
    progress = job.progress
    eta = None
    if job.state is JobState.RUNNING and progress.fraction > 0.01:
        eta = round(running_seconds * (1 - progress.fraction) / progress.fraction, 1)
    return ProgressView(**progress.model_dump(exclude={"stage"}), eta_seconds=eta)


class ProblemField(View):
    """One field to blame."""

    pointer: str | None = Field(None, description="JSON pointer (RFC 6901) into the document that was sent.")
    parameter: str | None = Field(None, description="Name of the query parameter or header, where one is to blame.")
    detail: str = Field(description="What is wrong with it. The value itself is never repeated.")


class Problem(View):
    """RFC 9457 problem details."""

    type: str = Field(description="/problems/{code}, which describes this kind of problem.")
    title: str = Field(description="The kind, in words.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(
        description="Permanent and kebab-case.", json_schema_extra={"enum": [row.code for row in TABLE if row.status]}
    )
    detail: str = Field(description="What happened this time.")
    instance: str = Field(description="urn:uuid:{request_id}")
    request_id: str = Field(description="Finds this request in the service's log; also in X-Request-ID.")
    hint: str | None = Field(None, description="What to do about it.")
    errors: list[ProblemField] | None = Field(None, description="The fields to blame, 20 at most.")
    nodes: list[str] | None = Field(None, description="teacher-op-unsupported: the ONNX nodes refused.")
    state: str | None = Field(None, description="invalid-transition, artifact-not-ready: the state of the job.")
    allowed: list[str] | None = Field(None, description="invalid-transition: states in which the request works.")
    max_bytes: int | None = Field(None, description="payload-too-large: the limit.")
    quota: str | None = Field(None, description="quota-exceeded: of what there is no more.")
    limit: int | None = Field(None, description="quota-exceeded, rate-limited: the limit.")
    used: int | None = Field(None, description="quota-exceeded: how much of it is used.")


class ProblemKind(View):
    """One row of the table of problems."""

    code: str = Field(description="Permanent, kebab-case.")
    status: int | None = Field(description="The HTTP status; null for codes found only in a job's `error`.")
    title: str = Field(description="In words.")
    meaning: str = Field(description="When it happens.")


class UseView(View):
    """One quota."""

    limit: int | None = Field(description="How much there may be; null: any number.")
    used: int = Field(description="How much there is.")


class QuotaView(View):
    """What a tenant may have, and what it has."""

    tenant: str = Field(description="Whose it is: that of the key with which was asked.")
    queued_jobs: UseView = Field(description="Jobs that are queued or paused.")
    running_jobs: UseView = Field(description="Jobs that run; others wait in the queue meanwhile.")
    stored_bytes: UseView = Field(description="Teachers that it sent and files of its jobs, equal ones once.")
    device_seconds_per_day: UseView = Field(description="For how long its jobs have run since midnight UTC.")


class Health(View):
    """The process lives."""

    status: str = Field(description="ok")


class Readiness(View):
    """What works and what does not."""

    status: str = Field(description="ok; degraded: jobs are kept but start late; unavailable: none can be kept.")
    missing: list[str] = Field(
        description="Names of the checks that fail: database, storage, sandbox, broker, worker, devices."
    )
    checks: dict[str, str] = Field(description="What each check found.")


class StudentView(View):
    """One architecture, sized for an input."""

    name: str = Field(description="Goes into `student.architecture`.")
    family: str
    paper: str
    form: str = Field(description="Which of its published forms this is.")
    options: Json = Field(description="JSON Schema of the family's own options, by name.")
    parameters: int | None = Field(None, description="Number of trained values; null where refused.")
    macs: int | None = Field(None, description="Multiply-adds for one image; null where refused.")
    refused: str | None = Field(None, description="Why it cannot take this input.")


class StudentsFor(View):
    """What the students of the menu are sized for."""

    channels: int
    height: int
    width: int
    num_classes: int
    student_width: float


class Menu(View):
    """Everything that can be asked for."""

    spec: Json = Field(description="JSON Schema of the spec, self-contained.")
    methods: Json = Field(description="JSON Schema of each method's options, by name.")
    memories: Json = Field(description="JSON Schema of each memory's options, by name.")
    student: Json = Field(description="JSON Schema of `student`.")
    students_for: StudentsFor
    students: list[StudentView] = Field(description="The catalogue.")
