"""Detection of the format of a teacher file from its first bytes, never from its name. This module is torch-free.

The service accepts ONNX and safetensors, because these formats hold data and no code. A file of another format is
refused with a hint that says how to convert it.
"""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from dfkd_core.errors import FormatUnsupported, TeacherInvalid, TeacherMismatch
from dfkd_core.onnx_import.ir.protobuf_scan import looks_like_onnx

SNIFF_BYTES = 4096

EXPORT_LINE = (
    "torch.onnx.export(model.eval(), (images,), 'teacher.onnx', dynamo=False, "
    "training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, "
    "input_names=['images'], output_names=['logits'], dynamic_axes={'images': {0: 'batch'}, 'logits': {0: 'batch'}})"
)
"""This call keeps the BatchNormalization statistics, which both exporters fold into convolutions by default."""
TO_ONNX = f"Convert it on your side, where the file is trusted: {EXPORT_LINE}"
TO_SAFETENSORS = (
    "A state dict of one of our architectures: "
    "safetensors.torch.save_file(torch.load('model.pt', weights_only=True), 'teacher.safetensors') "
    "and name the architecture in teacher.architecture."
)
FROM_TENSORFLOW = "python -m tf2onnx.convert --saved-model DIR --output teacher.onnx --inputs-as-nchw INPUT"
FROM_KERAS = "model.export('saved', format='tf_saved_model'), then " + FROM_TENSORFLOW
UNPACK = "Upload the model file itself, not an archive."
ORIGINAL = "Compiled or quantised models carry no gradient: export the original network to ONNX."


class TeacherFormat(StrEnum):
    """The formats that the service accepts."""

    ONNX = "onnx"
    SAFETENSORS = "safetensors"


def _is_zip(head: bytes) -> bool:
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"))


def _is_pickle(head: bytes) -> bool:
    """Return whether the bytes begin a pickle: protocol 2 and later have a header, older ones begin with a mark or
    import.
    """
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return True
    return head.startswith(
        (b"(dp", b"(lp", b"(i", b"ccopy_reg\n", b"c__builtin__\n", b"cbuiltins\n", b"cos\n", b"cposix\n")
    )


# (name of the format, hint, test of the first bytes); the first entry whose test succeeds applies
_REFUSED: list[tuple[str, str, Callable[[bytes], bool]]] = [
    ("a pickle", f"{TO_ONNX} — or: {TO_SAFETENSORS}", _is_pickle),
    ("a TorchScript archive", TO_ONNX, lambda b: _is_zip(b) and (b"/code/" in b or b"constants.pkl" in b)),
    (
        "a torch.export archive (.pt2)",
        TO_ONNX,
        lambda b: _is_zip(b) and (b"archive_format" in b or b"serialized_exported_program" in b or b"/models/" in b),
    ),
    (
        "a PyTorch pickle archive (.pt, .pth)",
        f"{TO_SAFETENSORS} — or: {TO_ONNX}",
        lambda b: _is_zip(b) and (b"data.pkl" in b or b"/.format_version" in b or b"/.storage_alignment" in b),
    ),
    ("a Keras archive (.keras)", FROM_KERAS, lambda b: _is_zip(b) and (b"metadata.json" in b or b"config.json" in b)),
    ("a TensorFlow SavedModel archive", FROM_TENSORFLOW, lambda b: _is_zip(b) and b"saved_model.pb" in b),
    ("a NumPy archive (.npz)", TO_ONNX, lambda b: _is_zip(b) and b".npy" in b),
    ("a zip archive", f"{UNPACK} {TO_ONNX}", _is_zip),
    ("an HDF5 file (Keras .h5)", FROM_KERAS, lambda b: b.startswith(b"\x89HDF\r\n\x1a\n")),
    ("a TFLite model", ORIGINAL, lambda b: b[4:8] == b"TFL3"),
    ("a GGUF model", "Only image classifiers are taken, as ONNX or safetensors.", lambda b: b.startswith(b"GGUF")),
    ("an ONNX Runtime file (.ort)", ORIGINAL, lambda b: b[4:8] == b"ORTM"),
    ("a TensorRT engine", ORIGINAL, lambda b: b.startswith(b"ftrt")),
    ("a NumPy array", TO_ONNX, lambda b: b.startswith(b"\x93NUMPY")),
    ("a gzip archive", UNPACK, lambda b: b.startswith(b"\x1f\x8b")),
    ("a bzip2 archive", UNPACK, lambda b: b.startswith(b"BZh")),
    ("an xz archive", UNPACK, lambda b: b.startswith(b"\xfd7zXZ\x00")),
    ("a zstd archive", UNPACK, lambda b: b.startswith(b"\x28\xb5\x2f\xfd")),
    ("a 7z archive", UNPACK, lambda b: b.startswith(b"7z\xbc\xaf\x27\x1c")),
    ("a rar archive", UNPACK, lambda b: b.startswith(b"Rar!\x1a\x07")),
    ("a tar archive", UNPACK, lambda b: b[257:262] == b"ustar"),
    ("a program (ELF)", TO_ONNX, lambda b: b.startswith(b"\x7fELF")),
    ("a Windows program", TO_ONNX, lambda b: b.startswith(b"MZ")),
    ("a PNG image", TO_ONNX, lambda b: b.startswith(b"\x89PNG")),
    ("a JPEG image", TO_ONNX, lambda b: b.startswith(b"\xff\xd8\xff")),
    ("a PDF document", TO_ONNX, lambda b: b.startswith(b"%PDF")),
    (
        "a Git LFS pointer",
        "Fetch the file first: git lfs pull",
        lambda b: b.startswith(b"version https://git-lfs.github.com"),
    ),
    (
        "an HTML page",
        "A download probably gave its login or error page.",
        lambda b: b.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")),
    ),
    ("an XML file (OpenVINO?)", ORIGINAL, lambda b: b.lstrip().startswith(b"<?xml")),
]


def sniff(first_bytes: bytes, filename: str | None = None) -> TeacherFormat:
    """Return the format of a file from its first `SNIFF_BYTES` bytes; the file's name is used only in a refusal.

    Raises:
        TeacherInvalid: the file is empty or truncated.
        FormatUnsupported: the file has another format; the hint says how to convert it.
    """
    head = first_bytes[:SNIFF_BYTES]
    if not head:
        raise TeacherInvalid("the teacher file is empty", hint="Upload the model file itself.")
    if _is_safetensors(head):  # tested before the pickles, because a header length of 640 looks like a pickle
        return TeacherFormat.SAFETENSORS
    for what, hint, matches in _REFUSED:
        if matches(head):
            raise FormatUnsupported(f"{what} is not accepted as a teacher", hint=hint)
    if looks_like_onnx(head):
        return TeacherFormat.ONNX
    if len(head) < 8:
        raise TeacherInvalid("the teacher file is truncated", hint="Upload the whole file.")
    raise FormatUnsupported(f"{_kind(head, filename)} is not accepted as a teacher", hint=TO_ONNX)


def sniff_file(path: Path) -> TeacherFormat:
    """Return the format of the file at `path`.

    Raises:
        TeacherInvalid: the file is empty or truncated.
        FormatUnsupported: the file has another format; the hint says how to convert it.
    """
    with path.open("rb") as file:
        return sniff(file.read(SNIFF_BYTES), path.name)


def teacher_format(path: Path, *, claimed: str | None) -> TeacherFormat:
    """Return the format of the teacher at `path`, which must be the one that the spec claims, if it claims one.

    Raises:
        TeacherMismatch: the file has another format than the spec claims.
        TeacherInvalid: the file is empty or truncated.
        FormatUnsupported: the file has a format that is not accepted.
    """
    found = sniff_file(path)
    if claimed is not None and claimed != found:
        raise TeacherMismatch(f"the file is {found}, the spec says {claimed}", pointer="/teacher/format")
    return found


def _is_safetensors(head: bytes) -> bool:
    """Return whether a JSON object follows eight bytes of header length; `read_header` checks the length itself."""
    return head[8:9] == b"{" and (b"\x00" in head[:8] or not head[:8].isascii())


def _kind(head: bytes, filename: str | None) -> str:
    if (
        head[:64].isascii()
        and head[:64].decode().replace("\n", " ").replace("\r", " ").replace("\t", " ").isprintable()
    ):
        return "a text file"
    suffix = (filename or "").rpartition(".")[2].lower()
    named = {
        "pb": "a TensorFlow graph",
        "mlmodel": "a Core ML model",
        "engine": "a TensorRT engine",
        "nb": "a notebook",
    }
    return named.get(suffix, "a file of this kind")
