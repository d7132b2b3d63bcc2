"""A job: its state, its progress, and where to go from it."""

from datetime import datetime

from pydantic import Field

from dfkd.wire.artifact import ArtifactView
from dfkd.wire.model import Answer, Json, Request
from dfkd.wire.teacher import TeacherView


class ListQuery(Request):
    """Which jobs to list, and how many on a page."""

    limit: int = Field(20, ge=1, le=100, description="Jobs on a page.")
    cursor: str | None = Field(None, max_length=200, description="`next_cursor` of the page before.")
    state: list[str] = Field([], max_length=20, description="Only these states; repeat it or separate with commas.")
    label: list[str] = Field([], max_length=32, description="Only jobs with this label, `key=value`; repeat for more.")


class ProgressView(Answer):
    """The progress of a job."""

    fraction: float = Field(description="Share of the whole job's running time that is done, 0 to 1; it never falls.")
    step: int = Field(description="Student updates done.")
    total_steps: int = Field(description="Student updates in all; 0 until known.")
    eta_seconds: float | None = Field(
        description="Running time left, from what was measured in this attempt; null until something was."
    )
    agreement: float | None = Field(description="Agreement of the published student with its teacher, on the probe.")
    message: str | None = Field(
        description='What is being done, in one line for people, such as "inverting images 320 of 4 096".'
    )


class DurationsView(Answer):
    """How long a job waited and ran, in seconds."""

    queued_seconds: float = Field(description="From acceptance to the first claim, or until now.")
    running_seconds: float = Field(description="Running time of all attempts; waiting between them is not counted.")


class BestView(Answer):
    """The student that would be delivered if the job stopped now."""

    step: int = Field(description="Number of student updates when it was published.")
    agreement: float = Field(
        description="Its newest score: agreement with the teacher on the synthetic probe; equal to progress.agreement."
    )


class EstimateView(Answer):
    """What a job takes on one class of workers."""

    worker_class: str = Field(description="Name of the class, such as cpu-2.")
    seconds: float = Field(description="Running time.")
    memory_bytes: int = Field(description="Largest memory of its runner; of the GPU on workers with a GPU.")


class ErrorView(Answer):
    """Why a job failed."""

    code: str = Field(description="Permanent, kebab-case; GET /problems/{code} describes it.")
    detail: str = Field(description="What happened.")
    hint: str | None = Field(None, description="What to do about it.")
    stage: str | None = Field(None, description="The stage in which it happened.")
    attempt: int | None = Field(None, description="The attempt in which it happened.")


class WarningView(Answer):
    """Something worth knowing that did not stop the job."""

    code: str = Field(description="Permanent, kebab-case.")
    detail: str = Field(description="What it means.")
    hint: str | None = Field(None, description="What to do about it.")


class LinksView(Answer):
    """Paths of what belongs to a job, relative to the service's root."""

    self: str
    events: str
    artifacts: str
    cancel: str
    pause: str
    resume: str
    retry: str
    continue_: str = Field(alias="continue")


class JobView(Answer):
    """One teacher in, one student out."""

    id: str = Field(description="Random UUID, made by the service.")
    name: str | None = Field(description="The caller's name for it.")
    labels: dict[str, str] = Field(description="The caller's labels.")
    state: str = Field(description="queued, running, pausing, paused, cancelling, succeeded, failed or cancelled.")
    terminal: bool = Field(description="True if the job has finished and will not change any more.")
    stage: str = Field(
        description="queued or paused, load, inspect, distill, export, verify, done. New ones may appear."
    )
    queue_position: int | None = Field(description="1 is next; null unless queued.")
    progress: ProgressView
    best: BestView | None = Field(description="The published student, while there is one.")
    attempt: int = Field(description="How many attempts were started and counted.")
    warnings: list[WarningView]
    error: ErrorView | None = Field(description="Why it failed; null unless failed.")
    durations: DurationsView
    estimate: list[EstimateView] | None = Field(
        None,
        description="What the whole job takes, by class of workers, estimated when it was accepted; null if no "
        "worker was ever seen.",
    )
    created_at: datetime = Field(description="When it was accepted.")
    updated_at: datetime = Field(description="When it last changed.")
    started_at: datetime | None = Field(description="When it was first claimed.")
    finished_at: datetime | None = Field(description="When it became terminal.")
    heartbeat_at: datetime | None = Field(description="When its worker last renewed the lease.")
    revision: int = Field(description="Number that rises with every change.")
    retried_from: str | None = Field(None, description="Id of the finished job that this one repeats.")
    continued_from: str | None = Field(None, description="Id of the job from whose last checkpoint this one continues.")
    traceparent: str | None = Field(None, description="W3C trace context from the request that made the job.")
    spec: Json = Field(
        description="The spec with every default filled in; as it was stored, if another version accepted the job."
    )
    teacher: TeacherView
    artifacts: list[ArtifactView] = Field(
        description="Files that can be downloaded; empty until the job has succeeded."
    )
    links: LinksView


class JobList(Answer):
    """One page of jobs, newest first."""

    jobs: list[JobView]
    next_cursor: str | None = Field(description="Pass it as `cursor`; null on the last page.")
