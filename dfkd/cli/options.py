"""Options that several commands have in one wording, and what is made of them: a teacher's spec, the opened ledger."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from dfkd.errors import UsageError

if TYPE_CHECKING:
    from dfkd_core.spec.teacher import TeacherSpec
    from jobs.store import Store

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option("--url", envvar="DFKD_URL", help="Address of the service.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Layout = Annotated[
    str | None,
    typer.Option(help="NHWC or NCHW: where the channels of the images are, if the graph hides it."),
]
DataDir = Annotated[Path | None, typer.Option(help="Directory of all data; DFKD_DATABASE_URL takes precedence.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job.")]

Weights = Annotated[Path | None, typer.Option(help="A file of weights for the network.", exists=True, dir_okay=False)]
Pick = Annotated[str | None, typer.Option(help="Part of the file of weights, such as ema.")]
Mean = Annotated[str | None, typer.Option(help="Mean of each channel, or one for all: 0.49,0.48,0.45.")]
Std = Annotated[str | None, typer.Option(help="Standard deviation of each channel, or one for all.")]
ChosenLogits = Annotated[
    str | None, typer.Option("--logits", help="Which of the network's outputs are the logits: a name or a number.")
]

_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_teacher_id(text: str) -> bool:
    """True if the text has the form of a teacher's id: the sha256 of its file in hexadecimal."""
    return _DIGEST.fullmatch(text) is not None


@contextmanager
def opened_ledger(data_dir: Path | None) -> "Iterator[Store]":
    """Yield the ledger that this machine's settings name; it is closed afterwards.

    Raises:
        MissingExtra: the libraries of the service are not installed.
        BadOption: a setting is wrong.
        LedgerUnavailable: the database does not answer.
    """
    from dfkd_core.extras import require

    require("server")
    from jobs.settings import settings_from_environment
    from jobs.store import open_store

    with closing(open_store(settings_from_environment(data_dir))) as store:
        yield store


def check_tenant(name: str) -> None:
    """Check the name of a tenant.

    Raises:
        UsageError: it is no such name.
    """
    from jobs.identity import TENANT

    if not TENANT.fullmatch(name):
        raise UsageError("a tenant is 1 to 64 letters, digits, '_', '.' and '-', the first one a letter or digit")


def numbers(name: str, text: str | None, channels: int | None = None) -> list[float] | None:
    """Return the numbers of `--mean` or `--std`, one for each channel; a single one is for all channels.

    Raises:
        UsageError: they are no numbers.
    """
    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--{name} takes numbers such as 0.49,0.48,0.45, not {text!r}") from None
    return found * channels if len(found) == 1 and channels is not None else found


def put_input(document: dict[str, Any], *, shape: str | None, mean: str | None, std: str | None) -> None:
    """Write `--shape`, `--mean` and `--std` into the spec's `teacher.input`.

    Raises:
        UsageError: they are no numbers.
        BadOption: the shape is none.
    """
    from dfkd_core.spec import overrides

    sizes = None if shape is None else list(overrides.shape(shape))
    known = sizes or input_in(document).get("shape")
    channels = known[0] if isinstance(known, list) and known and isinstance(known[0], int) else None
    told = {"shape": sizes, "mean": numbers("mean", mean, channels), "std": numbers("std", std, channels)}
    for name, value in told.items():
        if value is not None:
            overrides.put(document, f"teacher.input.{name}", value)


def input_in(document: dict[str, Any]) -> dict[str, Any]:
    """Return the spec's `teacher.input`, empty where it says nothing that could be one."""
    teacher = document.get("teacher")
    space = teacher.get("input") if isinstance(teacher, dict) else None
    return space if isinstance(space, dict) else {}


def teacher_spec(
    architecture: str | None, shape: str | None, layout: str | None, assignments: list[str]
) -> "TeacherSpec":
    """Return the spec of a teacher from the options of a command.

    Raises:
        UsageError: the options contradict the schema of `teacher`.
        BadOption: an option cannot be read.
    """
    from dfkd_core.spec import overrides
    from dfkd_core.spec.explanation import explained
    from dfkd_core.spec.teacher import TeacherSpec

    document: dict[str, Any] = {}
    if architecture is not None:
        document["architecture"] = architecture
    if shape is not None:
        document["input"] = {"shape": list(overrides.shape(shape))}
    if layout is not None:
        overrides.put(document, "input.layout", layout.upper())
    overrides.apply(document, assignments)
    try:
        return TeacherSpec.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"teacher.{'.'.join(map(str, first['loc']))}: {explained(first, TeacherSpec)}") from None
