"""The door: a received teacher and a spec → a job in the ledger, or a refusal that leaves nothing behind.

Everything here blocks (child process, files, SQL) and runs in the thread pool.
"""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from dfkd_core.config import TeacherSpec
from dfkd_core.door import resolve
from jobs.callers import Caller
from jobs.errors import ArtifactLost, LedgerError, TeacherNotFound
from jobs.logs import about
from jobs.origins import Origin
from jobs.requests import Receipt, Standing
from jobs.schemas import Job, JobSpec, JobWarning, TeacherRef
from jobs.staging import Upload
from service.dependencies import Desk
from service.inspections import Facts, facts, inspect, recalled
from service.uploads import ReceivedTeacher, Submission

log = logging.getLogger(__name__)


def accept_submission(
    desk: Desk,
    submission: Submission,
    *,
    caller: Caller,
    traceparent: str | None = None,
    receipt: Receipt[Standing] | None = None,
) -> Job:
    """Inspect and resolve first, keep the file last: what is refused was never kept."""
    teacher, spec = submission.teacher, submission.spec
    assert teacher is not None  # both parts came, or the submission was refused
    assert spec is not None
    with submission.discarded_on_error():
        known = _known(desk, teacher.upload.sha256)
        inspection = inspect(teacher.upload.path, spec.teacher, desk.settings, known=known)
        resolved, _, warnings = resolve(spec, inspection)
        ref = _ref(teacher, facts(inspection, spec.teacher))
        with _kept_file(desk, teacher.upload):
            return _create(
                desk, resolved, ref.id, warnings, caller=caller, traceparent=traceparent, teacher=ref, receipt=receipt
            )


def accept_request(
    desk: Desk,
    spec: JobSpec,
    teacher_id: str,
    *,
    caller: Caller,
    traceparent: str | None = None,
    origin: Origin | None = None,
    receipt: Receipt[Standing] | None = None,
) -> Job:
    """A job for a teacher that is here already."""
    teacher = desk.store.get_teacher(teacher_id)
    if not desk.artifacts.exists(teacher.id):
        raise ArtifactLost(teacher.id)
    inspection = recalled(teacher, spec.teacher)
    if inspection is None:
        with desk.artifacts.borrowed(teacher.id) as path:
            inspection = inspect(path, spec.teacher, desk.settings)
    resolved, _, warnings = resolve(spec, inspection)
    return _create(
        desk, resolved, teacher.id, warnings, caller=caller, traceparent=traceparent, origin=origin, receipt=receipt
    )


def accept_teacher(
    desk: Desk, teacher: ReceivedTeacher, *, receipt: Receipt[tuple[TeacherRef, bool]] | None = None
) -> tuple[TeacherRef, bool]:
    """Keep a teacher for later jobs → what is kept, and whether it is new."""
    told = TeacherSpec()
    with teacher.upload.discarding():
        known = _known(desk, teacher.upload.sha256)
        inspection = inspect(teacher.upload.path, told, desk.settings, known=known)
        ref = _ref(teacher, facts(inspection, told))
        with _kept_file(desk, teacher.upload):
            return desk.store.put_teacher(ref, receipt=receipt)


def _known(desk: Desk, teacher_id: str) -> TeacherRef | None:
    try:
        return desk.store.get_teacher(teacher_id)
    except TeacherNotFound:
        return None


def _ref(teacher: ReceivedTeacher, found: Facts) -> TeacherRef:
    return TeacherRef(
        id=teacher.upload.sha256,
        bytes=teacher.upload.bytes,
        format=teacher.format.value,
        created_at=datetime.now(UTC),
        inspection=found,
    )


@contextmanager
def _kept_file(desk: Desk, upload: Upload) -> Iterator[None]:
    """The file first, then, inside, the rows that speak of it; a file whose rows could not be written is taken back."""
    try:
        with desk.artifacts.keeping():
            upload.commit()
            yield
    except LedgerError:
        desk.artifacts.remove_unreferenced([upload.sha256], desk.store.referenced)
        raise


def _create(
    desk: Desk,
    spec: JobSpec,
    teacher_id: str,
    warnings: list[dict[str, Any]],
    *,
    caller: Caller,
    traceparent: str | None,
    teacher: TeacherRef | None = None,
    origin: Origin | None = None,
    receipt: Receipt[Standing] | None,
) -> Job:
    told = [JobWarning.model_validate(warning) for warning in warnings]
    job = desk.store.create(
        str(uuid.uuid4()),
        spec,
        teacher_id,
        told,
        caller=caller,
        traceparent=traceparent,
        teacher=teacher,
        origin=origin,
        receipt=receipt,
    )
    with about(job_id=job.id, traceparent=traceparent):
        log.info("job accepted", extra={"teacher_id": teacher_id})
    return job
