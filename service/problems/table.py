"""The one table: code ↔ HTTP status ↔ exception. docs/api.md repeats it, and a test compares the two.

Codes are kebab-case and permanent. The science's exceptions bear their codes themselves; those of the other rooms are
named here. A row without a status never answers a request: it is found in `job.error`.
"""

from dataclasses import dataclass
from http import HTTPStatus

from dfkd_core.errors import DfkdError
from jobs import errors as ledger
from service.problems import errors as api


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of problem."""

    code: str
    status: HTTPStatus | None
    title: str  # the same for every occurrence
    meaning: str  # for docs/api.md and GET /problems/{code}
    raised_as: tuple[type[Exception], ...] = ()

    @property
    def type(self) -> str:
        """Where the service describes this kind of problem; a relative reference, as RFC 9457 allows."""
        return f"/problems/{self.code}"


_S = HTTPStatus

TABLE: tuple[Row, ...] = (
    Row(
        "malformed-json",
        _S.BAD_REQUEST,
        "Malformed JSON",
        "Not JSON: syntax, encoding, byte-order mark or nesting.",
        (api.MalformedJson,),
    ),
    Row(
        "malformed-multipart",
        _S.BAD_REQUEST,
        "Malformed multipart body",
        "Not multipart/form-data: boundary, part headers, missing end or text around the parts.",
        (api.MalformedMultipart,),
    ),
    Row(
        "unexpected-part",
        _S.BAD_REQUEST,
        "Unexpected part",
        "A part that is neither `teacher` nor `spec`, or one that came twice.",
        (api.UnexpectedPart,),
    ),
    Row("bad-request", _S.BAD_REQUEST, "Bad request", "The request cannot be understood.", (api.BadRequest,)),
    Row(
        "unauthenticated",
        _S.UNAUTHORIZED,
        "Not authenticated",
        "This needs `Authorization: Bearer KEY` with a key that is neither wrong nor expired nor revoked.",
        (api.Unauthenticated,),
    ),
    Row(
        "insufficient-scope",
        _S.FORBIDDEN,
        "Not allowed with this key",
        "The key is valid and lacks the scope that `WWW-Authenticate` names.",
        (api.InsufficientScope,),
    ),
    Row("not-found", _S.NOT_FOUND, "No such resource", "Nothing lives at this path.", (api.NotFound,)),
    Row("job-not-found", _S.NOT_FOUND, "No such job", "No job has this id, or it was deleted.", (ledger.JobNotFound,)),
    Row(
        "teacher-not-found",
        _S.NOT_FOUND,
        "No such teacher",
        "No teacher with this id was uploaded, or it is kept no longer.",
        (ledger.TeacherNotFound,),
    ),
    Row(
        "artifact-not-found",
        _S.NOT_FOUND,
        "No such artifact",
        "The job has no file of this name, and will not have one.",
        (ledger.ArtifactNotFound,),
    ),
    Row(
        "method-not-allowed",
        _S.METHOD_NOT_ALLOWED,
        "Method not allowed",
        "`Allow` names the methods that this path knows.",
        (api.MethodNotAllowed,),
    ),
    Row(
        "request-timeout",
        _S.REQUEST_TIMEOUT,
        "Request timed out",
        "The body stopped coming, or came too slowly.",
        (api.RequestTimeout,),
    ),
    Row(
        "invalid-transition",
        _S.CONFLICT,
        "Not possible in this state",
        "`state` is the job's state, `allowed` lists the states in which the request works.",
        (ledger.InvalidTransition,),
    ),
    Row(
        "teacher-in-use",
        _S.CONFLICT,
        "Teacher in use",
        "Jobs that have not finished use the teacher; cancel them or wait for their end, then delete it.",
        (ledger.TeacherInUse,),
    ),
    Row(
        "artifact-not-ready",
        _S.CONFLICT,
        "Artifact not ready",
        "The job has not finished; ask again after `Retry-After` seconds.",
        (api.ArtifactNotReady,),
    ),
    Row(
        "request-in-progress",
        _S.CONFLICT,
        "Request in progress",
        "A request with this `Idempotency-Key` is being answered; send it again after `Retry-After` seconds.",
        (ledger.RequestInProgress,),
    ),
    Row(
        "artifact-expired",
        _S.GONE,
        "Artifact expired",
        "The job finished longer ago than its files are kept.",
        (api.ArtifactExpired,),
    ),
    Row(
        "artifact-lost",
        _S.GONE,
        "File lost",
        "The bytes are no longer in the store. A teacher's come back when it is uploaded again.",
        (ledger.ArtifactLost,),
    ),
    Row(
        "checkpoint-expired",
        _S.GONE,
        "Checkpoint expired",
        "The job has no checkpoint from which another could go on, or has none any more.",
        (ledger.CheckpointExpired,),
    ),
    Row(
        "payload-too-large",
        _S.REQUEST_ENTITY_TOO_LARGE,
        "Payload too large",
        "`max_bytes` is the limit.",
        (api.PayloadTooLarge, ledger.UploadTooLarge),
    ),
    Row(
        "format-unsupported",
        _S.UNSUPPORTED_MEDIA_TYPE,
        "Teacher format not supported",
        "Told from the content: pickles, TorchScript, .pt2, Keras and other formats; the hint says how to convert.",
    ),
    Row(
        "unsupported-media-type",
        _S.UNSUPPORTED_MEDIA_TYPE,
        "Media type not supported",
        "This route does not read such a body or such an encoding.",
        (api.UnsupportedMediaType,),
    ),
    Row(
        "range-not-satisfiable",
        _S.REQUESTED_RANGE_NOT_SATISFIABLE,
        "Range not satisfiable",
        "`Content-Range` tells the size of the file.",
        (api.RangeNotSatisfiable,),
    ),
    Row(
        "validation-error",
        _S.UNPROCESSABLE_ENTITY,
        "Not valid",
        "`errors` lists up to 20 fields: a JSON `pointer` into the document, or a `parameter` of the query or headers.",
        (api.ValidationFailed, ledger.BadCursor),
    ),
    Row(
        "idempotency-key-reused",
        _S.UNPROCESSABLE_ENTITY,
        "Idempotency key reused",
        "Another request, with another body or to another path, was answered under this `Idempotency-Key`.",
        (api.IdempotencyKeyReused,),
    ),
    Row(
        "missing-part",
        _S.UNPROCESSABLE_ENTITY,
        "Part missing",
        "The multipart body needs both `teacher` and `spec`.",
        (api.MissingPart,),
    ),
    Row(
        "digest-mismatch",
        _S.UNPROCESSABLE_ENTITY,
        "Digest mismatch",
        "The bytes that arrived are not those that the client declared.",
        (api.DigestMismatch,),
    ),
    Row(
        "teacher-invalid",
        _S.UNPROCESSABLE_ENTITY,
        "Teacher cannot be read",
        "The right format, but empty, broken, too complex or beyond the limits of the inspection.",
    ),
    Row(
        "teacher-op-unsupported",
        _S.UNPROCESSABLE_ENTITY,
        "Teacher uses unsupported operators",
        "`nodes` lists each ONNX node that cannot be taken.",
    ),
    Row(
        "teacher-mismatch",
        _S.UNPROCESSABLE_ENTITY,
        "Teacher and spec disagree",
        "File, architecture, input shape or classes do not belong together.",
    ),
    Row(
        "student-infeasible",
        _S.UNPROCESSABLE_ENTITY,
        "Student cannot be built",
        "The architecture is unknown, or cannot take this input.",
    ),
    Row(
        "student-not-smaller",
        _S.UNPROCESSABLE_ENTITY,
        "Student not smaller",
        "The student has at least as many parameters as its teacher.",
    ),
    Row(
        "requirement-unmet",
        _S.UNPROCESSABLE_ENTITY,
        "Requirement not met",
        "Method or memory needs what this teacher, or the other one, does not offer.",
    ),
    Row(
        "quota-exceeded",
        _S.TOO_MANY_REQUESTS,
        "Quota exceeded",
        "The tenant has as much as it may have: `quota` says of what, `limit` how much, `used` how much it has.",
        (ledger.QuotaExceeded,),
    ),
    Row(
        "rate-limited",
        _S.TOO_MANY_REQUESTS,
        "Too many requests",
        "More than `limit` requests came in a while; ask again after `Retry-After` seconds.",
        (api.RateLimited,),
    ),
    Row(
        "headers-too-large",
        _S.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "Headers too large",
        "The request has more headers than are read.",
        (api.HeadersTooLarge,),
    ),
    Row(
        "internal",
        _S.INTERNAL_SERVER_ERROR,
        "Internal error",
        "A fault of ours; `request_id` finds it in the log. In `job.error`: the runner failed unexpectedly.",
        (ledger.LedgerError, api.ApiError),
    ),
    Row(
        "artifact-corrupt",
        _S.INTERNAL_SERVER_ERROR,
        "Artifact damaged",
        "The stored bytes no longer have their digest, so they are not sent.",
        (ledger.ArtifactCorrupt,),
    ),
    Row(
        "unavailable",
        _S.SERVICE_UNAVAILABLE,
        "Temporarily unavailable",
        "Database or storage do not answer; ask again after `Retry-After` seconds.",
        (ledger.LedgerUnavailable, ledger.SchemaRefused, ledger.StorageUnavailable),
    ),
    Row(
        "sandbox-unavailable",
        _S.SERVICE_UNAVAILABLE,
        "No sandbox",
        "This host makes no sandbox to read a teacher in, so none is taken.",
    ),
    Row(
        "storage-full",
        _S.INSUFFICIENT_STORAGE,
        "Storage full",
        "No room to keep the upload; nothing of it was kept.",
        (ledger.StorageFull,),
    ),
    Row(
        "teacher-parity",
        None,
        "Teacher misread",
        "Our reading of the ONNX graph and ONNX Runtime disagree.",
    ),
    Row(
        "compile-unavailable",
        None,
        "Cannot compile",
        "`compute.compile` is on, and the worker's host cannot compile; the hint says what it lacks.",
    ),
    Row(
        "teacher-not-differentiable",
        None,
        "Teacher gives no gradient",
        "No useful gradient reaches the teacher's input.",
    ),
    Row(
        "distillation-diverged",
        None,
        "Distillation diverged",
        "A loss or a weight became NaN or infinite, and going back did not help.",
    ),
    Row(
        "generator-collapsed",
        None,
        "Generator collapsed",
        "The synthesizer produces one image only, and going back did not help.",
    ),
    Row(
        "agreement-below-target",
        None,
        "Agreement below target",
        "The student misses `accept.agreement.min`, and `on_miss` says fail.",
    ),
    Row(
        "export-mismatch",
        None,
        "Export mismatch",
        "ONNX Runtime and PyTorch disagree about the exported student.",
    ),
    Row(
        "checkpoint-mismatch",
        None,
        "Checkpoint of another run",
        "The checkpoint was written by another spec, build or thread count.",
    ),
    Row(
        "spec-unreadable",
        None,
        "Spec of another version",
        "The job was accepted by a version with other options, and this one cannot run it.",
    ),
    Row("out-of-memory", None, "Out of memory", "The runner was ended for want of memory."),
    Row("worker-lost", None, "Worker lost", "The job's workers disappeared more often than is allowed."),
    Row("poison", None, "Crashes every time", "The runner crashed again and again without a newer checkpoint."),
    Row("time-limit", None, "Time limit", "The job ran longer than is allowed."),
)

BY_CODE = {row.code: row for row in TABLE}
_BY_EXCEPTION = {exception: row for row in TABLE for exception in row.raised_as}


def row_for(error: Exception) -> Row:
    """The row of an exception: by its own code, or by the nearest class in its ancestry; `internal` for strangers."""
    if isinstance(error, DfkdError):
        return BY_CODE.get(error.code, BY_CODE["internal"])
    for ancestor in type(error).__mro__:
        if ancestor in _BY_EXCEPTION:
            return _BY_EXCEPTION[ancestor]
    return BY_CODE["internal"]
