"""Options that several commands have in one wording, and the ledger that they open."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd.errors import UsageError

if TYPE_CHECKING:
    from jobs.store import Store

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option("--url", envvar="DFKD_URL", help="Address of the service.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
DataDir = Annotated[Path | None, typer.Option(help="Directory of all data; DFKD_DATABASE_URL takes precedence.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job.")]

Weights = Annotated[Path | None, typer.Option(help="A file of weights for the network.", exists=True, dir_okay=False)]
Pick = Annotated[str | None, typer.Option(help="Part of the file of weights, such as ema.")]
Mean = Annotated[str | None, typer.Option(help="Mean of each channel, or one for all: 0.49,0.48,0.45.")]
Std = Annotated[str | None, typer.Option(help="Standard deviation of each channel, or one for all.")]
ChosenLogits = Annotated[
    str | None, typer.Option("--logits", help="Which of the network's outputs are the logits: a name or a number.")
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--arg", help="name=value: an argument of the code's function or class; repeat for more."),
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


def numbers(name: str, text: str | None) -> list[float] | None:
    """Return the numbers that an option such as `--mean` lists.

    Raises:
        UsageError: they are no numbers.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--{name} takes numbers such as 0.49,0.48,0.45, not {text!r}") from None
