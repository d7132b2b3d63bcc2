"""What a command may be given as its teacher: a file, the id of an uploaded teacher, or the code of a network."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd.cli import display
from dfkd.cli.export_teacher import export_request, run_export
from dfkd.cli.options import is_teacher_id
from dfkd.errors import BadTeacher, UsageError

if TYPE_CHECKING:
    from dfkd_core.exporting.request import Exported

err = display.console(stderr=True)

_CHECKPOINTS = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """The options for a teacher that is given as code."""

    weights: Path | None
    pick: str | None
    arguments: Sequence[str]  # name=value
    logits: str | None

    @property
    def given(self) -> bool:
        """Return whether at least one was given."""
        return bool(self.weights or self.pick or self.arguments or self.logits)


@contextmanager
def teacher_to_send(text: str, options: NetworkOptions, *, space: dict[str, Any]) -> Iterator[Path | str]:
    """Yield the path of a file, or the id of an uploaded teacher. Code is run and exported to a temporary file.

    `space` is the spec's `teacher.input`.

    Raises:
        UsageError: the text is nothing of all that, or the options are for code.
        BadTeacher: the export failed, or the file is a checkpoint.
    """
    from dfkd_core.exporting.request import names_code

    if names_code(text):
        with tempfile.TemporaryDirectory(prefix="dfkd-") as folder:
            yield _exported(text, options, space, Path(folder) / "teacher.onnx").path
        return
    if options.given:
        raise UsageError("--weights, --pick, --arg and --logits are for a teacher that is given as code: mynet.py:Net")
    yield file_or_id(text)


@contextmanager
def file_to_read(text: str, options: NetworkOptions, *, space: dict[str, Any]) -> Iterator[Path]:
    """Yield the path of a file. Code is run and exported to a temporary file.

    Raises:
        UsageError: the text is neither a file nor code, or the options are for code.
        BadTeacher: the export failed.
    """
    if Path(text).is_file() and not options.given:
        yield Path(text)  # who reads it says what is wrong with a checkpoint
        return
    with teacher_to_send(text, options, space=space) as what:
        if isinstance(what, str):
            raise UsageError("this takes a file, or code such as mynet.py:Net; not the id of a teacher")
        yield what


def file_or_id(text: str) -> Path | str:
    """Return the path of a file if there is one, else the id of an uploaded teacher.

    Raises:
        UsageError: the text is neither.
        BadTeacher: the file is a checkpoint of PyTorch.
    """
    if Path(text).is_file():
        _refuse_checkpoint(Path(text))
        return Path(text)
    if is_teacher_id(text):
        return text
    raise UsageError(f"there is no file {text!r}, and it is not the id of a teacher, nor code such as mynet.py:Net")


def _exported(source: str, options: NetworkOptions, space: dict[str, Any], output: Path) -> "Exported":
    """Export the network, and say on standard error what was done."""
    from dfkd_core.spec import overrides

    exported = run_export(
        export_request(
            source=source,
            output=output,
            weights=options.weights,
            pick=options.pick,
            arguments=overrides.arguments(options.arguments),
            input_shape=space.get("shape"),
            mean=space.get("mean"),
            std=space.get("std"),
            logits=options.logits,
        )
    )
    for line in exported.told[1:]:
        err.print(line)
    norms = exported.inspection.batchnorm
    kept = f"BatchNorm {norms.status}" + (f", {norms.present} layers" if norms.present else "")
    differ = f"file and network differ by {exported.max_abs_diff:.1g} at most"
    err.print(f"exported {display.size(exported.file.bytes)}; {differ}; {kept}")
    return exported


def _refuse_checkpoint(path: Path) -> None:
    """Say before anything is sent what to do with a file that only PyTorch opens.

    Raises:
        BadTeacher: the file is one, or another one of PyTorch's under such a name.
    """
    from dfkd_core.errors import FormatUnsupported, TeacherInvalid
    from dfkd_core.inspection.formats.detection import sniff_file
    from dfkd_core.inspection.formats.refused import WEIGHTS

    if path.suffix.lower() not in _CHECKPOINTS:
        return  # the service judges
    try:
        sniff_file(path)
    except FormatUnsupported as error:
        if error.hint != WEIGHTS:  # such as TorchScript, whose code lies in the file
            raise BadTeacher(f"{path.name}: {error.detail}", code=error.code, hint=error.hint) from None
        raise BadTeacher(
            f"{path.name}: {error.detail}, because opening it can run code",
            code=error.code,
            hint=f"Name the network's code too: dfkd submit mynet.py:Net --weights {path} --shape C,H,W exports it on "
            "this machine. In Python: dfkd.compress(model, input_shape=(C, H, W)).",
        ) from None
    except TeacherInvalid:
        return  # as above
