"""Reading what clients send to POST /jobs and POST /teachers: streamed, capped, hashed and sniffed on the way."""

import base64
import binascii
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from dfkd_core.inspection.formats.detection import SNIFF_BYTES, TeacherFormat, sniff
from dfkd_core.inspection.formats.refused import is_zip
from dfkd_core.inspection.formats.zip_directory import TAIL_BYTES
from jobs.files.artifacts import ArtifactStore
from jobs.files.upload import Upload
from jobs.models import JobSpec
from jobs.settings import Settings
from service.intake import bodies
from service.intake.multipart import MultipartReader, boundary_of
from service.intake.spec_parsing import read_spec
from service.problems.errors import (
    DigestMismatch,
    FieldError,
    MissingPart,
    UnexpectedPart,
    UnsupportedMediaType,
    ValidationFailed,
)


@dataclass(slots=True)
class ReceivedTeacher:
    """A teacher in a temporary file: commit it or discard it."""

    upload: Upload
    format: TeacherFormat


@dataclass(slots=True)
class Submission:
    """The two parts of POST /jobs, as far as they have come."""

    spec: JobSpec | None = None
    teacher: ReceivedTeacher | None = None

    def content(self) -> dict[str, Any]:
        """Return what the request asks for: the spec and the digest of the teacher."""
        assert self.spec is not None  # both parts came, or the submission was refused
        assert self.teacher is not None
        return {"spec": self.spec.request(), "teacher": self.teacher.upload.sha256}

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


async def receive_submission(request: Request, settings: Settings, artifacts: ArtifactStore) -> Submission:
    """Both parts of a multipart body, in either order. A refusal leaves no file behind."""
    boundary = boundary_of(request.headers.get("content-type", ""))
    body = bodies.stream(request, settings)
    submission = Submission()
    with submission.discarded_on_error():
        await _read_parts(MultipartReader(body, boundary), submission, settings, artifacts)
    return submission


async def _read_parts(
    reader: MultipartReader, submission: Submission, settings: Settings, artifacts: ArtifactStore
) -> None:
    async for part in reader.parts():
        if part.name == "spec" and submission.spec is None:
            text = await bodies.read(reader.chunks(), max_bytes=settings.max_spec_bytes)
            submission.spec = read_spec(text, max_bytes=settings.max_spec_bytes)
        elif part.name == "teacher" and submission.teacher is None:
            submission.teacher = await receive_teacher(reader.chunks(), settings, artifacts)
        else:
            known = part.name in {"spec", "teacher"}
            raise UnexpectedPart(
                f"There are two `{part.name}` parts." if known else "Only `spec` and `teacher` are read."
            )
    if submission.spec is None or submission.teacher is None:
        missing = "spec" if submission.spec is None else "teacher"
        raise MissingPart(
            f"There is no `{missing}` part.", hint="Send the parts `spec` (JSON) and `teacher` (the file)."
        )


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
    if bodies.media_type_of(request) != "application/octet-stream":
        raise UnsupportedMediaType("This route reads application/octet-stream.")
    declared = declared_sha256(request)
    teacher = await receive_teacher(bodies.stream(request, settings), settings, artifacts)
    if declared is not None and declared != teacher.upload.sha256:
        teacher.upload.discard()
        raise DigestMismatch("The bytes that arrived do not have the sha256 that was declared.")
    return teacher


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
