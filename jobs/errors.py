"""The exceptions of the ledger and of the file store. `dfkd_core.errors` explains `code`, `title` and `status`."""

from collections.abc import Sequence

from dfkd_core.errors import CodedError
from jobs.models import JobState


class LedgerError(CodedError):
    """The ledger or the file store refuses a request or cannot carry it out."""


class JobNotFound(LedgerError):
    """No job has this id, or the job was deleted."""

    code, title, status = "job-not-found", "No such job", 404

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id!r}")
        self.job_id = job_id


class TeacherNotFound(LedgerError):
    """No teacher with this id was uploaded, or it is no longer kept."""

    code, title, status = "teacher-not-found", "No such teacher", 404

    def __init__(self, teacher_id: str) -> None:
        super().__init__(f"there is no teacher {teacher_id!r}")
        self.teacher_id = teacher_id


class TeacherInUse(LedgerError):
    """Jobs that have not finished use the teacher; cancel them or wait for their end, then delete it."""

    code, title, status = "teacher-in-use", "Teacher in use", 409

    def __init__(self, live_jobs: int) -> None:
        super().__init__(f"{live_jobs} jobs that have not finished use this teacher")
        self.live_jobs = live_jobs


class ArtifactNotFound(LedgerError):
    """The job has no file of this name and will not have one."""

    code, title, status = "artifact-not-found", "No such artifact", 404

    def __init__(self, sha256: str) -> None:
        super().__init__(f"there is no file with sha256 {sha256!r}")
        self.sha256 = sha256


class ArtifactCorrupt(LedgerError):
    """The stored bytes no longer have their digest, so they are not sent."""

    code, title, status = "artifact-corrupt", "Artifact damaged", 500

    def __init__(self, sha256: str) -> None:
        super().__init__(f"the file with sha256 {sha256} has changed in the store")
        self.sha256 = sha256


class ArtifactLost(LedgerError):
    """The file is no longer in the store. A lost teacher comes back when it is uploaded again."""

    code, title, status = "artifact-lost", "File lost", 410

    def __init__(self, sha256: str) -> None:
        super().__init__(f"the file with sha256 {sha256} is no longer in the store")
        self.sha256 = sha256


class InvalidTransition(LedgerError):
    """The job is in `state`; the request works only in one of the states in `allowed`."""

    code, title, status = "invalid-transition", "Not possible in this state", 409

    def __init__(self, state: str, *, allowed: Sequence[JobState]) -> None:
        names = ", ".join(allowed)
        super().__init__(f"the job is {state!s}; this needs one of: {names}")
        self.state = state
        self.allowed = tuple(allowed)


class CheckpointExpired(LedgerError):
    """The job has no checkpoint from which another job could continue, or no longer has one."""

    code, title, status = "checkpoint-expired", "Checkpoint expired", 410

    def __init__(self) -> None:
        super().__init__("the job has no checkpoint, or has none any more")


class BadCursor(LedgerError):
    """The cursor of a list was not made by this service."""

    code = "validation-error"  # described at service.problems.errors.ValidationFailed

    def __init__(self) -> None:
        super().__init__("the cursor was not made by this service")


class UploadTooLarge(LedgerError):
    """An upload has more than `max_bytes` bytes."""

    code = "payload-too-large"  # described at service.problems.errors.PayloadTooLarge

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the file is larger than {max_bytes} bytes")
        self.max_bytes = max_bytes


class RequestInProgress(LedgerError):
    """Another request with this `Idempotency-Key` is being answered; send it again after `Retry-After` seconds."""

    code, title, status = "request-in-progress", "Request in progress", 409

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("another request with this key is being answered")
        self.retry_after_seconds = retry_after_seconds


class QuotaExceeded(LedgerError):
    """The tenant has used up a quota: `quota` names it, `limit` is the most allowed, `used` how much is in use."""

    code, title, status = "quota-exceeded", "Quota exceeded", 429

    def __init__(self, quota: str, *, limit: int, used: int, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{quota}: {used} of {limit} are used")
        self.quota = quota
        self.limit = limit
        self.used = used
        self.retry_after_seconds = retry_after_seconds  # None: it is not known when there will be room


class ClaimRaceLost(Exception):
    """Another claim took the job first. The store repeats the claim, so no caller sees this error."""


class SchemaRefused(LedgerError):
    """The tables of the database have a schema version that this release cannot work with."""

    code = "unavailable"  # described at LedgerUnavailable

    def __init__(self, found: str, known: str) -> None:
        super().__init__(
            f"the tables of the database have revision {found}, and this version of dfkd knows {known}: "
            "install the version that changed them, or the one before it"
        )
        self.found = found
        self.known = known


class StorageFull(LedgerError):
    """There is no room to keep the upload; nothing of it was kept."""

    code, title, status = "storage-full", "Storage full", 507


class LedgerUnavailable(LedgerError):
    """The database or the storage does not answer; ask again after `Retry-After` seconds."""

    code, title, status = "unavailable", "Temporarily unavailable", 503


class StorageUnavailable(LedgerUnavailable):
    """The object store did not answer in time."""

    code = "unavailable"


JOB_FAILURES = {
    "spec-unreadable": (
        "Spec of another version",
        "The job was accepted by a version with other options, and this version cannot run it.",
    ),
    "out-of-memory": ("Out of memory", "The runner was ended because the machine or its device ran out of memory."),
    "worker-lost": ("Worker lost", "The job's workers disappeared more often than is allowed."),
    "poison": ("Crashes every time", "The runner crashed again and again without a newer checkpoint."),
}
"""Title and meaning of the codes that ledger and worker write into `job.error` without an exception."""
