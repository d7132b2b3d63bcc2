"""Turns a received teacher and a spec into a job in the ledger, or refuses them and leaves nothing behind.

The functions `accept_…` block (child process, files, SQL) and run in the thread pool.
"""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

from anyio import to_thread
from fastapi import Request

from dfkd_core.inspection.inspection import Inspection
from dfkd_core.inspection.limits import check_cost
from dfkd_core.inspection.resolve import resolve_teacher
from dfkd_core.planning.forecast import Continuation
from dfkd_core.spec.teacher import TeacherSpec
from jobs.errors import ArtifactLost, LedgerError, TeacherNotFound
from jobs.ledger.lineage import Origin
from jobs.lifecycle.idempotency import OutcomeRecorder
from jobs.log_context import about
from jobs.models import SAID, Job, JobSpec, JobWithPosition, TeacherRef
from service.dependencies import AppContext
from service.intake.bodies import FRAMING_BYTES, OCTETS, media_type_of
from service.intake.estimates import Assessment, assess, check_feasible
from service.intake.idempotency import IdempotentRequest
from service.intake.inspection_cache import Facts, cost_limits, facts, inspect, recalled
from service.intake.said_before import over_said, sayings
from service.intake.uploads import ReceivedTeacher, Submission, declared_sha256

log = logging.getLogger(__name__)


async def check_quota(request: Request, context: AppContext, idempotency: IdempotentRequest) -> None:
    """Check the tenant's quotas before the body is read; the ledger checks them again when it creates the row.

    A request whose key was answered before passes.

    Raises:
        QuotaExceeded: the job or teacher that the request sends would be over a quota.
    """
    if idempotency.was_answered:
        return
    submits = request.scope["path"] == "/jobs"
    alone = media_type_of(request) == OCTETS
    others_bytes = 0 if alone else context.settings.max_spec_bytes + FRAMING_BYTES
    announced = int(request.headers.get("content-length", "0"))  # `check_headers` made sure of a number
    check = partial(
        context.store.check_room,
        num_bytes=max(0, announced - others_bytes),
        teacher_id=declared_sha256(request) if alone else None,
        submits=submits,
    )
    await to_thread.run_sync(check)


def accept_submission(
    context: AppContext,
    submission: Submission,
    *,
    traceparent: str | None = None,
    recorder: OutcomeRecorder[JobWithPosition] | None = None,
) -> Job:
    """Inspect and resolve first and keep the file last, so that a refused file is never kept."""
    teacher, spec = submission.teacher, submission.spec
    assert teacher is not None  # both parts came, or the submission was refused
    assert spec is not None
    with submission.discarded_on_error():
        known = known_teacher(context, teacher.upload.sha256)
        inspection = inspect(teacher.upload.path, spec.teacher, context.settings, known=known)
        accepted = _accepted(context, spec, inspection)
        with _keeping(context, teacher):
            ref = _ref(teacher, facts(inspection, spec.teacher))
            return _create(context, accepted, ref, traceparent=traceparent, recorder=recorder)


def accept_request(
    context: AppContext,
    spec: JobSpec,
    teacher_id: str,
    *,
    traceparent: str | None = None,
    origin: Origin | None = None,
    before: Continuation | None = None,
    recorder: OutcomeRecorder[JobWithPosition] | None = None,
) -> Job:
    """Create a job for a teacher that was uploaded before; `before` is given where it continues another job."""
    teacher, spec, inspection = inspected(context, spec, teacher_id)
    accepted = _accepted(context, spec, inspection, before=before)
    return _create(context, accepted, teacher.id, traceparent=traceparent, origin=origin, recorder=recorder)


def inspected(context: AppContext, spec: JobSpec, teacher_id: str) -> tuple[TeacherRef, JobSpec, Inspection]:
    """Return a teacher that was uploaded before, the spec with what its upload said, and the inspection under it."""
    teacher = context.store.get_teacher(teacher_id)
    if not context.artifacts.exists(teacher.id):
        raise ArtifactLost(teacher.id)
    spec = over_said(spec, teacher)
    inspection = recalled(teacher, spec.teacher)
    if inspection is None:
        with context.artifacts.borrowed(teacher.id) as path:
            inspection = inspect(path, spec.teacher, context.settings)
    return teacher, spec, inspection


def accept_teacher(
    context: AppContext,
    teacher: ReceivedTeacher,
    said: TeacherSpec | None,
    *,
    recorder: OutcomeRecorder[tuple[TeacherRef, bool]] | None = None,
) -> tuple[TeacherRef, bool]:
    """Keep a teacher for later jobs, with what the upload says of it; returns the teacher and whether it is new."""
    spec = said or TeacherSpec()
    with teacher.upload.discarding():
        known = known_teacher(context, teacher.upload.sha256)
        inspection = inspect(teacher.upload.path, spec, context.settings, known=known)
        if inspection.input_shape is not None:
            resolve_teacher(spec, inspection)
        check_cost(inspection, cost_limits(context.settings))
        found = facts(inspection, spec) | ({} if said is None else {SAID: sayings(said)})
        with _keeping(context, teacher):
            return context.store.put_teacher(_ref(teacher, found), recorder=recorder)


def _accepted(
    context: AppContext, spec: JobSpec, inspection: Inspection, *, before: Continuation | None = None
) -> Assessment:
    """Resolve the spec for this teacher; refuse what is over the cost limits or what no known worker can do."""
    classes, quotas = context.ledger.worker_classes(context.settings.lease_seconds), context.store.quota_limits()
    assessed = assess(spec, inspection, context.settings, classes=classes, quotas=quotas, before=before)
    check_feasible(assessed.spec, assessed.outlooks, continues=before is not None)
    return assessed


def known_teacher(context: AppContext, teacher_id: str) -> TeacherRef | None:
    """Return the teacher with this id; None if the tenant does not have it."""
    try:
        return context.store.get_teacher(teacher_id)
    except TeacherNotFound:
        return None


@contextmanager
def _keeping(context: AppContext, teacher: ReceivedTeacher) -> Iterator[None]:
    """Store the file before the row is written inside; remove the file again if writing the row fails."""
    try:
        with context.artifacts.keeping():
            teacher.upload.commit()
            yield
    except LedgerError:
        context.artifacts.remove_unreferenced([teacher.upload.sha256], context.ledger.referenced)
        raise


def _ref(teacher: ReceivedTeacher, found: Facts) -> TeacherRef:
    upload = teacher.upload
    return TeacherRef(
        id=upload.sha256,
        bytes=upload.bytes,
        format=teacher.format.value,
        created_at=datetime.now(UTC),
        inspection=found,
    )


def _create(
    context: AppContext,
    accepted: Assessment,
    teacher: TeacherRef | str,
    *,
    traceparent: str | None,
    origin: Origin | None = None,
    recorder: OutcomeRecorder[JobWithPosition] | None,
) -> Job:
    job = context.store.create(
        str(uuid.uuid4()),
        accepted.spec,
        teacher,
        accepted.warnings,
        traceparent=traceparent,
        origin=origin,
        estimate=None if accepted.outlooks is None else [found.estimate for found in accepted.outlooks],
        recorder=recorder,
    )
    with about(job_id=job.id, traceparent=traceparent):
        log.info("job accepted", extra={"teacher_id": job.teacher.id})
    return job
