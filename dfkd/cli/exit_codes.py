"""The exit codes of `dfkd`, and which error ends in which of them."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from rich.console import Console

from dfkd.cli.display import show_complaint, show_problem
from dfkd.errors import BadTeacher, Damaged, Refused, Unreachable, UsageError, WaitTimeout


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANCELLED = 3
    REFUSED = 4
    UNREACHABLE = 5
    TIMEOUT = 6
    DOWNLOAD = 7
    INTERRUPTED = 130


class Complaint(NamedTuple):
    """What is said of an error, and the exit code."""

    exit: Exit
    code: str
    detail: str
    hint: str | None = None
    nodes: Sequence[str] = ()


def show_error(err: Console, error: Exception) -> Exit | None:
    """Say what went wrong and what to do about it → the exit code; None if the error is a fault of this program."""
    if isinstance(error, Refused):
        show_problem(err, error.problem)
        return Exit.REFUSED
    complaint = _complaint(error) or _complaint_of_a_room(error)
    if complaint is None:
        return None
    show_complaint(err, "error", complaint.code, complaint.detail, hint=complaint.hint)
    for node in complaint.nodes:
        err.print(f"  {node}")
    return complaint.exit


def _complaint(error: Exception) -> Complaint | None:  # noqa: PLR0911 - one return for each class of errors
    """Errors of the client and of the operating system."""
    match error:
        case WaitTimeout():
            return Complaint(Exit.TIMEOUT, "wait-timeout", f"{error}; it goes on")
        case Unreachable():
            hint = "`dfkd up` starts one; --url says where."
            return Complaint(Exit.UNREACHABLE, "unreachable", str(error), hint)
        case Damaged():
            return Complaint(Exit.DOWNLOAD, "digest-mismatch", str(error), "Download it again.")
        case BadTeacher():
            status = Exit.USAGE if error.code == "extra-missing" else Exit.REFUSED
            return Complaint(status, error.code, error.detail, error.hint, error.nodes)
        case UsageError():
            return Complaint(Exit.USAGE, "usage", str(error))
        case OSError():
            return Complaint(Exit.DOWNLOAD, "file", f"{error.filename or 'file'}: {error.strerror or error}")
    return None


def _complaint_of_a_room(error: Exception) -> Complaint | None:
    """Errors of the science and the ledger. Their classes are imported here, after a command has failed."""
    from dfkd_core.errors import DfkdError
    from dfkd_core.extras import MissingExtra
    from dfkd_core.spec.overrides import BadOption
    from jobs.errors import LedgerError, LedgerUnavailable

    match error:
        case MissingExtra():
            return Complaint(Exit.USAGE, "extra-missing", str(error))
        case BadOption():
            return Complaint(Exit.USAGE, "usage", str(error))
        case DfkdError():
            return Complaint(Exit.REFUSED, error.code, error.detail, error.hint, getattr(error, "nodes", []))
        case LedgerUnavailable():
            return Complaint(Exit.UNREACHABLE, "unavailable", str(error))
        case LedgerError():
            return Complaint(Exit.REFUSED, "ledger", str(error))
    return None
