"""Detection of the format of a teacher file from its content, never from its name. This module is torch-free.

The service accepts ONNX and safetensors, because these formats hold data and no code. A file of another format is
refused with a hint that says what to do with it; `refused_formats` has them. The first bytes tell most formats; a zip
archive is told by the directory at its end.
"""

import os
from enum import StrEnum
from pathlib import Path

from dfkd_core.errors import FormatUnsupported, TeacherInvalid, TeacherMismatch
from dfkd_core.inspection.formats.refused import Refused, archive_of, format_of, is_zip, unknown
from dfkd_core.inspection.formats.zip_directory import TAIL_BYTES, names_in
from dfkd_core.onnx_import.ir.protobuf_scan import looks_like_onnx

SNIFF_BYTES = 4096
FEWEST_BYTES = 8  # no model is as short


class TeacherFormat(StrEnum):
    """The formats that the service accepts."""

    ONNX = "onnx"
    SAFETENSORS = "safetensors"


def sniff(first_bytes: bytes, filename: str | None = None, *, last_bytes: bytes = b"") -> TeacherFormat:
    """Return the format of a file from its first `SNIFF_BYTES` bytes; the file's name is used only in a refusal.

    If the first bytes are those of a zip archive (`is_zip`), the last `TAIL_BYTES` tell what it is.

    Raises:
        TeacherInvalid: the file is empty, or too short to be a model.
        FormatUnsupported: the file has another format; the hint says what to do with it.
    """
    head = first_bytes[:SNIFF_BYTES]
    if not head:
        raise TeacherInvalid("the teacher file is empty", hint="Look at its size where it was written; write it again.")
    if _is_safetensors(head):  # tested before the pickles, because a header length of 640 looks like a pickle
        return TeacherFormat.SAFETENSORS
    if is_zip(head):
        raise _refusal(archive_of(names_in(last_bytes) or [head.decode("latin-1")]))
    refused = format_of(head)
    if refused is not None:
        raise _refusal(refused)
    if looks_like_onnx(head):
        return TeacherFormat.ONNX
    if len(head) < FEWEST_BYTES:
        raise TeacherInvalid(
            f"the teacher file has {len(head)} bytes, which are no model",
            hint="Look at its size where it was written; write it again.",
        )
    raise _refusal(unknown(head, filename))


def sniff_file(path: Path) -> TeacherFormat:
    """Return the format of the file at `path`.

    Raises:
        TeacherInvalid: the file is empty, or too short to be a model.
        FormatUnsupported: the file has another format; the hint says what to do with it.
    """
    with path.open("rb") as file:
        head = file.read(SNIFF_BYTES)
        last = b""
        if is_zip(head):
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            last = file.read(TAIL_BYTES)
    return sniff(head, path.name, last_bytes=last)


def teacher_format(path: Path, *, claimed: str | None) -> TeacherFormat:
    """Return the format of the teacher at `path`, which must be the one that the spec claims, if it claims one.

    Raises:
        TeacherMismatch: the file has another format than the spec claims.
        TeacherInvalid: the file is empty, or too short to be a model.
        FormatUnsupported: the file has a format that is not accepted.
    """
    found = sniff_file(path)
    if claimed is not None and claimed != found:
        raise TeacherMismatch(f"the file is {found}, the spec says {claimed}", pointer="/teacher/format")
    return found


def _refusal(refused: Refused) -> FormatUnsupported:
    return FormatUnsupported(f"{refused.what} is not accepted as a teacher", hint=refused.hint)


def _is_safetensors(head: bytes) -> bool:
    """Return whether a JSON object follows eight bytes of header length; `read_header` checks the length itself."""
    return head[8:9] == b"{" and (b"\x00" in head[:8] or not head[:8].isascii())
