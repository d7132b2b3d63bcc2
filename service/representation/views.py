"""From the ledger's values to the models of the wire."""

from datetime import UTC, datetime

from dfkd.wire.artifact import ArtifactView
from dfkd.wire.deletion import PurgeView
from dfkd.wire.event import EventView
from dfkd.wire.job import DurationsView, JobView, LinksView, ProgressView
from dfkd.wire.teacher import NarrowedSizes, Suitability, TeacherView
from dfkd_core.inspection.narrowed import narrowed_sizes
from dfkd_core.inspection.suitability import suitability
from jobs.models import DEPTH, SAID, ArtifactRef, Event, Job, JobState, PurgeReceipt, TeacherRef
from service.intake.inspection_cache import inspection_of

NARROWING = "narrowing"  # numbers for programs, in an inspection; clients get `narrowed`


def job_view(job: Job, *, queue_position: int | None = None, at: datetime | None = None) -> JobView:
    """Return a job as its client sees it at the time `at` (default: now)."""
    now = at or datetime.now(UTC)
    running = _running_seconds(job, now)
    computed = {
        "name": job.spec.name,
        "labels": job.spec.labels,
        "state": job.public_state,
        "terminal": job.state.terminal,
        "stage": job.progress.stage,
        "queue_position": queue_position,
        "progress": _progress_view(job, now),
        "durations": DurationsView(queued_seconds=_queued_seconds(job, now), running_seconds=round(running, 3)),
        "spec": job.spec.model_dump(mode="json"),
        "teacher": teacher_view(job.teacher),
        "artifacts": [artifact_view(job.id, artifact) for artifact in job.artifacts],
        "links": _links(job.id),
    }
    return JobView.model_validate(dict(job) | computed)  # the other fields have the same names in both


def teacher_view(teacher: TeacherRef) -> TeacherView:
    """Return a teacher with the methods and the narrowed copies that its inspection allows."""
    found = inspection_of(teacher)
    methods = None if found is None or found.input_shape is None else Suitability.model_validate(suitability(found))
    sizes = None if found is None else narrowed_sizes(found)
    narrowed = None if sizes is None else NarrowedSizes.model_validate(sizes)
    kept = teacher.inspection
    inspection = {name: value for name, value in kept.items() if name not in (DEPTH, SAID, NARROWING)}
    added = {
        "inspection": inspection,
        "spec": kept.get(SAID),
        "methods": methods,
        "narrowed": narrowed,
        "depth": kept.get(DEPTH),
    }
    return TeacherView.model_validate(dict(teacher) | added)


def artifact_view(job_id: str, artifact: ArtifactRef) -> ArtifactView:
    """Return a file of a job with the path of its download."""
    return ArtifactView(**artifact.model_dump(), url=f"/jobs/{job_id}/artifacts/{artifact.name}")


def event_view(event: Event) -> EventView:
    """Return one line of a job's history."""
    return EventView.model_validate(event)


def purge_view(receipt: PurgeReceipt) -> PurgeView:
    """Return the receipt of a deletion."""
    return PurgeView.model_validate(receipt)


def _links(job_id: str) -> LinksView:
    root = f"/jobs/{job_id}"
    names = (field.alias or name for name, field in LinksView.model_fields.items())
    return LinksView.model_validate({name: root if name == "self" else f"{root}/{name}" for name in names})


def _queued_seconds(job: Job, now: datetime) -> float:
    """Seconds from the acceptance to the first claim, to the end of a job that was never claimed, or to `now`."""
    until = job.started_at or job.finished_at or now
    return round(max(0.0, (until - job.created_at).total_seconds()), 3)


def _running_seconds(job: Job, now: datetime) -> float:
    """Seconds in the finished attempts plus those of the attempt that is running."""
    current = 0.0
    if job.state is JobState.RUNNING and job.claimed_at is not None:
        current = max(0.0, (now - job.claimed_at).total_seconds())
    return job.running_seconds + current


def _progress_view(job: Job, now: datetime) -> ProgressView:
    """Return the progress. Of the time that was left when the runner last reported, the time since then has passed."""
    progress, eta = job.progress, None
    if job.state is JobState.RUNNING and progress.eta_seconds is not None and job.eta_at is not None:
        eta = round(max(0.0, progress.eta_seconds - (now - job.eta_at).total_seconds()), 1)
    return ProgressView(**progress.model_dump(exclude={"stage", "eta_seconds"}), eta_seconds=eta)
