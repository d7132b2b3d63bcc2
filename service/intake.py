"""The door: a received teacher and a spec → a job in the ledger, or a refusal that leaves nothing behind.

Everything here blocks (child process, files, SQL) and runs in the thread pool.
"""

import logging
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dfkd_core.door import resolve
from dfkd_core.inspection import Inspection, inspect_in_child

from dfkd_core.config import TeacherSpec
from jobs.errors import LedgerError
from jobs.schemas import Job, JobSpec, JobWarning, TeacherRef
from service.dependencies import Desk
from service.errors import MissingPart
from service.uploads import ReceivedTeacher, Submission

log = logging.getLogger(__name__)


def accept_submission(desk: Desk, submission: Submission) -> Job:
    """Inspect and resolve first, keep the file last: what is refused was never kept."""
    teacher, spec = submission.teacher, submission.spec
    if teacher is None or spec is None:
        raise MissingPart("A job needs a teacher and a spec.")
    try:
        inspection = inspect(desk, teacher.upload.path, spec.teacher)
        resolved, _, warnings = resolve(spec, inspection)
        kept, _ = _keep(desk, teacher, inspection)
    except BaseException:
        submission.discard()
        raise
    return _create(desk, resolved, kept.id, warnings)


def accept_request(desk: Desk, spec: JobSpec, teacher_id: str) -> Job:
    """A job for a teacher that is here already."""
    teacher = desk.store.get_teacher(teacher_id)
    inspection = inspect(desk, desk.artifacts.path(teacher.id), spec.teacher)
    resolved, _, warnings = resolve(spec, inspection)
    return _create(desk, resolved, teacher.id, warnings)


def accept_teacher(desk: Desk, teacher: ReceivedTeacher) -> tuple[TeacherRef, bool]:
    """Keep a teacher for later jobs → what is kept, and whether it is new."""
    try:
        inspection = inspect(desk, teacher.upload.path, TeacherSpec())
        return _keep(desk, teacher, inspection)
    except BaseException:
        teacher.upload.discard()
        raise


def inspect(desk: Desk, path: Path, spec: TeacherSpec) -> Inspection:
    """The structural inspection, in its throw-away child."""
    settings = desk.settings
    return inspect_in_child(
        path,
        spec,
        timeout_seconds=settings.inspection_timeout_seconds,
        memory_bytes=settings.inspection_memory_bytes,
    )


def _keep(desk: Desk, teacher: ReceivedTeacher, inspection: Inspection) -> tuple[TeacherRef, bool]:
    """The file first, then its row; a file whose row could not be written is taken back."""
    upload = teacher.upload
    ref = TeacherRef(
        id=upload.sha256,
        bytes=upload.bytes,
        format=teacher.format.value,
        created_at=datetime.now(UTC),
        inspection=inspection.model_dump(mode="json"),
    )
    try:
        with desk.artifacts.keeping():
            upload.commit()
            return desk.store.put_teacher(ref)
    except LedgerError:
        _take_back(desk, upload.sha256)
        raise


def _take_back(desk: Desk, sha256: str) -> None:
    """Remove a file that no row speaks of; while the database is silent nobody can know, and the janitor will."""
    try:
        desk.artifacts.remove_unreferenced([sha256], desk.store.referenced)
    except LedgerError:
        log.warning("a file without a row stays for the janitor", extra={"sha256": sha256})


def _create(desk: Desk, spec: JobSpec, teacher_id: str, warnings: list[dict[str, Any]]) -> Job:
    told = [JobWarning.model_validate(warning) for warning in warnings]
    job = desk.store.create(str(uuid.uuid4()), spec, teacher_id, told)
    log.info("job accepted", extra={"job_id": job.id, "teacher_id": teacher_id})
    return job
