"""ONNX models in two files: PyTorch's default exporter writes the weights of larger networks beside the model.

The service takes one file. `one_file` puts the two together on this machine, with the package `onnx` (the extra
`teacher`), which is imported only for such a model. Files are read only if they lie beside the model.
"""

import mmap
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dfkd.errors import BadTeacher

LARGEST_BYTES = 2**31 - 1
"""The largest message that protobuf writes, and so the largest ONNX file that holds its weights."""
ONE_FILE = "export one file: torch.onnx.export(…, external_data=False)"

_KEY = b"\x0a\x08location\x12"  # in a protobuf message: field 1 is the text "location", and field 2 follows
_EXTERNAL_DATA = 0x6A  # the key of TensorProto.external_data, a message


@contextmanager
def one_file(path: Path) -> Iterator[Path]:
    """Yield the path of one file that holds this teacher: `path`, or a temporary file with the weights put in.

    Raises:
        BadTeacher: the weights lie in other files, and cannot be put in.
    """
    names = data_files(path)
    if not names:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="dfkd-") as folder:
        merged = Path(folder) / "teacher.onnx"
        _merge(path, names, merged)
        yield merged


def data_files(path: Path) -> list[str]:
    """Return the names of the files in which an ONNX model keeps tensors; none for any other file.

    The bytes are searched for the entry that names such a file, so that nothing has to be installed.
    """
    if path.stat().st_size == 0:
        return []
    found: dict[str, None] = {}  # names in the order of the file
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[8:9] == b"{":  # safetensors
            return []
        at = data.find(_KEY)
        while at >= 0:
            name = _name_at(data, at)
            if name is not None:
                found[name] = None
            at = data.find(_KEY, at + 1)
    return list(found)


def _name_at(data: mmap.mmap, at: int) -> str | None:
    """Return the file name in the entry whose `_KEY` is at offset `at`; None if it is no entry of external data."""
    start = at + len(_KEY)
    length, begins = _varint(data, start)
    name = bytes(data[begins : begins + length])
    whole = begins + length - at
    framed = whole.to_bytes(1) if whole < 128 else bytes([whole & 127 | 128, whole >> 7 & 127])
    before = bytes([_EXTERNAL_DATA]) + framed
    if whole >= 1 << 14 or data[max(0, at - len(before)) : at] != before:
        return None
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Return the number of one or two bytes at offset `at`, and the offset after it."""
    first, second = (*data[at : at + 2], 0, 0)[:2]
    return (first, at + 1) if first < 128 else (first & 127 | second << 7, at + 2)


def _merge(path: Path, names: Sequence[str], merged: Path) -> None:
    """Write the model with all its tensors to `merged`; the same files always give the same bytes.

    Raises:
        BadTeacher: a file is not a plain file beside the model, the whole is too large, or onnx is not installed.
    """
    total = path.stat().st_size + sum(_size_beside(path, name) for name in names)
    if total > LARGEST_BYTES:
        raise BadTeacher(
            f"{path.name} and its weights have {total / 1e9:.1f} GB; one ONNX file holds at most 2 GB",
            hint="That is protobuf's limit. Weights in float16 take half the room.",
        )
    try:
        import onnx
    except ModuleNotFoundError:
        raise BadTeacher(
            f"{path.name} keeps its weights in {_listed(names)}; to put them into one file this needs onnx: "
            "pip install 'dfkd[teacher]'",
            code="extra-missing",
            hint=f"Or {ONE_FILE}.",
        ) from None
    try:
        model = onnx.load(path)
        content = model.SerializeToString(deterministic=True)
    except Exception as error:  # the exceptions of onnx and protobuf share no base class
        raise BadTeacher(
            f"{path.name} and {_listed(names)} do not go together: {error}", hint=f"Otherwise {ONE_FILE}."
        ) from error
    merged.write_bytes(content)


def _size_beside(path: Path, name: str) -> int:
    """Return the size in bytes of the plain file `name` beside the model.

    Raises:
        BadTeacher: it is elsewhere, absent, or a link.
    """
    if Path(name).name != name or name in {"", ".."} or "\\" in name:
        raise BadTeacher(
            f"{path.name} keeps weights in {name!r}, which is not a name in its own folder",
            hint=f"Put both files into one folder under the names that they were written with, or {ONE_FILE}.",
        )
    try:
        found = path.with_name(name).lstat()
    except FileNotFoundError:
        raise BadTeacher(
            f"{path.name} keeps its weights in {name}, which is not beside it",
            hint=f"Put both files into one folder under the names that they were written with, or {ONE_FILE}.",
        ) from None
    if not stat.S_ISREG(found.st_mode):
        raise BadTeacher(
            f"{name}, in which {path.name} keeps its weights, is a link or no plain file",
            hint=f"Copy the files themselves into one folder: cp -L {path.name} {name} FOLDER",
        )
    return found.st_size


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more files"
