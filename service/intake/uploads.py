"""Reading what clients send with a teacher's file: streamed, capped, hashed and sniffed on the way."""

import base64
import binascii
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from starlette.requests import Request

from dfkd_core.inspection.formats.detection import SNIFF_BYTES, TeacherFormat, sniff
from dfkd_core.inspection.formats.refused import is_zip
from dfkd_core.inspection.formats.zip_directory import TAIL_BYTES
from dfkd_core.spec.teacher import TeacherSpec
from jobs.files.artifacts import ArtifactStore
from jobs.files.upload import Upload
from jobs.models import JobSpec
from jobs.settings import Settings
from service.intake import bodies
from service.intake.multipart import MultipartReader, boundary_of
from service.intake.said_before import read_upload_spec, sayings
from service.intake.spec_parsing import read_spec
from service.problems.errors import (
    DigestMismatch,
    FieldError,
    MissingPart,
    UnexpectedPart,
    UnsupportedMediaType,
    ValidationFailed,
)

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)


class ReadSpec(Protocol[S_co]):
    """Reads the text of a `spec` part."""

    def __call__(self, text: bytes, *, max_bytes: int) -> S_co: ...


@dataclass(slots=True)
class ReceivedTeacher:
    """A teacher in a temporary file: commit it or discard it."""

    upload: Upload
    format: TeacherFormat


@dataclass(slots=True)
class Parts(Generic[S]):
    """The two parts of a multipart body, as far as they have come."""

    spec: S | None = None
    teacher: ReceivedTeacher | None = None

    def discard(self) -> None:
        if self.teacher is not None:
            self.teacher.upload.discard()

    @contextmanager
    def discarded_on_error(self) -> Iterator[None]:
        """A refusal inside leaves no file behind."""
        try:
            yield
        except BaseException:
            self.discard()
            raise


@dataclass(slots=True)
class Submission(Parts[JobSpec]):
    """The parts of POST /jobs: a teacher and a job's spec."""

    def content(self) -> dict[str, Any]:
        """Return what the request asks for: the spec and the digest of the teacher."""
        assert self.spec is not None  # both parts came, or the submission was refused
        assert self.teacher is not None
        return {"spec": self.spec.request(), "teacher": self.teacher.upload.sha256}


@dataclass(slots=True)
class TeacherUpload(Parts[TeacherSpec]):
    """What POST /teachers was sent: a teacher, and perhaps what the caller says of it."""

    def content(self) -> dict[str, Any]:
        """Return what the request asks for: the digest of the teacher, and what is said of it, if anything is."""
        assert self.teacher is not None  # it came, or the upload was refused
        said = {} if self.spec is None else {"spec": sayings(self.spec)}
        return {"teacher": self.teacher.upload.sha256, **said}


async def receive_submission(request: Request, settings: Settings, artifacts: ArtifactStore) -> Submission:
    """Both parts of a multipart body, in either order. A refusal leaves no file behind."""
    submission = Submission()
    with submission.discarded_on_error():
        await _read_parts(request, submission, read_spec, settings, artifacts)
        if submission.spec is None:
            raise _missing("spec")
    return submission


async def receive_upload(request: Request, settings: Settings, artifacts: ArtifactStore) -> TeacherUpload:
    """The body of POST /teachers: the raw file, or a multipart body. A refusal leaves no file behind."""
    media_type = bodies.media_type_of(request)
    if media_type == bodies.OCTETS:
        return TeacherUpload(teacher=await receive_octets(request, settings, artifacts))
    if media_type != "multipart/form-data":
        raise UnsupportedMediaType("This route reads application/octet-stream or multipart/form-data.")
    declared, upload = declared_sha256(request), TeacherUpload()
    with upload.discarded_on_error():
        await _read_parts(request, upload, read_upload_spec, settings, artifacts)
        assert upload.teacher is not None  # it came, or the body was refused
        _check_digest(declared, upload.teacher)
    return upload


async def _read_parts(
    request: Request, submission: Parts[S], read: ReadSpec[S], settings: Settings, artifacts: ArtifactStore
) -> None:
    """Read the parts into `submission`; the teacher has to be among them."""
    boundary = boundary_of(request.headers.get("content-type", ""))
    reader = MultipartReader(bodies.stream(request, settings), boundary)
    async for part in reader.parts():
        if part.name == "spec" and submission.spec is None:
            text = await bodies.read(reader.chunks(), max_bytes=settings.max_spec_bytes)
            submission.spec = read(text, max_bytes=settings.max_spec_bytes)
        elif part.name == "teacher" and submission.teacher is None:
            submission.teacher = await receive_teacher(reader.chunks(), settings, artifacts)
        else:
            known = part.name in {"spec", "teacher"}
            raise UnexpectedPart(
                f"There are two `{part.name}` parts." if known else "Only `spec` and `teacher` are read."
            )
    if submission.teacher is None:
        raise _missing("teacher")


def _missing(part: str) -> MissingPart:
    return MissingPart(f"There is no `{part}` part.", hint="Send the parts `spec` (JSON) and `teacher` (the file).")


async def receive_teacher(
    chunks: AsyncIterator[bytes], settings: Settings, artifacts: ArtifactStore
) -> ReceivedTeacher:
    """Write a teacher's bytes to a temporary file; refuse them as soon as they cannot be a teacher."""
    sniffer = _Sniffer(chunks)
    upload = await artifacts.receive_async(sniffer.chunks(), max_bytes=settings.max_upload_bytes)
    assert sniffer.format is not None  # the end of the chunks decides at the latest
    return ReceivedTeacher(upload, sniffer.format)


async def receive_octets(request: Request, settings: Settings, artifacts: ArtifactStore) -> ReceivedTeacher:
    """Return the raw body of POST /teachers; compared with the digest that the client declared, if it did."""
    declared = declared_sha256(request)
    teacher = await receive_teacher(bodies.stream(request, settings), settings, artifacts)
    with teacher.upload.discarding():
        _check_digest(declared, teacher)
    return teacher


def _check_digest(declared: str | None, teacher: ReceivedTeacher) -> None:
    """Check the file that arrived against the digest that the client declared, if it did.

    Raises:
        DigestMismatch: they differ.
    """
    if declared not in (None, teacher.upload.sha256):
        raise DigestMismatch("The bytes that arrived do not have the sha256 that was declared.")


def declared_sha256(request: Request) -> str | None:
    """Return the digest in Repr-Digest (RFC 9530, sha-256) or X-Content-SHA256 (hexadecimal); None when absent."""
    plain = request.headers.get("x-content-sha256")
    if plain is not None:
        return _hexadecimal(plain.strip().lower(), header="x-content-sha256")
    for member in request.headers.get("repr-digest", "").split(","):
        algorithm, _, value = member.strip().partition("=")
        if algorithm.lower() == "sha-256":
            return _hexadecimal(_decoded(value), header="repr-digest")
    return None


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value.strip().removeprefix(":").removesuffix(":"), validate=True).hex()
    except (binascii.Error, ValueError):
        return ""


def _hexadecimal(text: str, *, header: str) -> str:
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        error = FieldError("", "must be a sha256", parameter=header)
        raise ValidationFailed("The declared digest is not valid.", errors=[error])
    return text


class _Sniffer:
    """Passes chunks on and detects the format as soon as enough bytes were seen.

    What a zip archive is, its end tells. So it is read to its end, of which no more than the last bytes are kept, and
    nothing of it is passed on.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self.format: TeacherFormat | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        first, last = b"", bytearray()
        async for chunk in self._chunks:
            if self.format is None:
                first += chunk[:SNIFF_BYTES]
                if is_zip(first):
                    last += chunk
                    if len(last) > 2 * TAIL_BYTES:
                        del last[:-TAIL_BYTES]
                    continue
                if len(first) >= SNIFF_BYTES:
                    self.format = sniff(first[:SNIFF_BYTES])
            yield chunk
        if self.format is None:
            self.format = sniff(first[:SNIFF_BYTES], last_bytes=bytes(last))
