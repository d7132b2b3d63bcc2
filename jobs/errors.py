"""The ledger's exceptions. No HTTP here: the service has one table from these classes to problems.

LedgerError
├── JobNotFound            no such job
├── TeacherNotFound        no such teacher
├── ArtifactNotFound       no such file in the artifact store
├── ArtifactCorrupt        the bytes in the store are not the ones that were kept: they are never served
├── ArtifactLost           a row speaks of bytes that the store no longer has
├── TeacherInUse           jobs that have not finished use the teacher
├── InvalidTransition      the job's state does not allow this
├── CheckpointExpired      the job has no checkpoint, or has none any more
├── BadCursor              not a cursor of ours
├── UploadTooLarge         more bytes than the cap
├── RequestInProgress      another request with this key is being answered
├── QuotaExceeded          the tenant has as much as it may have
├── SchemaRefused          the tables are of a version that this one cannot work with
├── StorageFull            no space left for a file or for the database; what was half written is gone
└── LedgerUnavailable      the database did not answer, or not in time; asking again later is safe
    └── StorageUnavailable     the same of the object store
"""

from collections.abc import Sequence

from jobs.models import JobState


class LedgerError(Exception):
    """Anything the ledger refuses or cannot do."""


class JobNotFound(LedgerError):
    """No such job."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id!r}")
        self.job_id = job_id


class TeacherNotFound(LedgerError):
    """No such teacher."""

    def __init__(self, teacher_id: str) -> None:
        super().__init__(f"there is no teacher {teacher_id!r}")
        self.teacher_id = teacher_id


class TeacherInUse(LedgerError):
    """Jobs that have not finished use the teacher."""

    def __init__(self, live_jobs: int) -> None:
        super().__init__(f"{live_jobs} jobs that have not finished use this teacher")
        self.live_jobs = live_jobs


class ArtifactNotFound(LedgerError):
    """No such file in the artifact store."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"there is no file with sha256 {sha256!r}")
        self.sha256 = sha256


class ArtifactCorrupt(LedgerError):
    """The bytes in the store are not the ones that were kept."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"the file with sha256 {sha256} has changed in the store")
        self.sha256 = sha256


class ArtifactLost(LedgerError):
    """A row speaks of bytes that the store no longer has."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"the file with sha256 {sha256} is no longer in the store")
        self.sha256 = sha256


class InvalidTransition(LedgerError):
    """The job's state does not allow this."""

    def __init__(self, state: str, *, allowed: Sequence[JobState]) -> None:
        names = ", ".join(allowed)
        super().__init__(f"the job is {state!s}; this needs one of: {names}")
        self.state = state
        self.allowed = tuple(allowed)


class CheckpointExpired(LedgerError):
    """The job has no checkpoint, or has none any more."""

    def __init__(self) -> None:
        super().__init__("the job has no checkpoint, or has none any more")


class BadCursor(LedgerError):
    """Not a cursor of ours."""

    def __init__(self) -> None:
        super().__init__("the cursor was not made by this service")


class UploadTooLarge(LedgerError):
    """More bytes than the cap."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the file is larger than {max_bytes} bytes")
        self.max_bytes = max_bytes


class RequestInProgress(LedgerError):
    """Another request with this key is being answered."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("another request with this key is being answered")
        self.retry_after_seconds = retry_after_seconds


class QuotaExceeded(LedgerError):
    """The tenant has as much as it may have."""

    def __init__(self, quota: str, *, limit: int, used: int, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{quota}: {used} of {limit} are used")
        self.quota = quota
        self.limit = limit
        self.used = used
        self.retry_after_seconds = retry_after_seconds  # None: nobody can tell when there will be room


class Overtaken(Exception):
    """Another claim was quicker: claim again. No caller sees it."""


class SchemaRefused(LedgerError):
    """The tables are of a version that this one cannot work with."""

    def __init__(self, found: str, known: str) -> None:
        super().__init__(
            f"the tables of the database have revision {found}, and this version of dfkd knows {known}: "
            "install the version that changed them, or the one before it"
        )
        self.found = found
        self.known = known


class StorageFull(LedgerError):
    """No space left for a file or for the database."""


class LedgerUnavailable(LedgerError):
    """The database did not answer, or not in time."""


class StorageUnavailable(LedgerUnavailable):
    """The object store did not answer, or not in time."""
