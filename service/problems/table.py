"""The table of all error codes, read from the exception classes; docs/api.md and GET /problems/{code} show it."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from dfkd_core import errors as science
from dfkd_core.errors import CodedError
from jobs import errors as ledger
from service.problems import errors as api


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of problem."""

    code: str  # kebab-case and permanent
    status: int | None  # None: the code never answers a request; it is found in `job.error`
    title: str  # the same for every occurrence
    meaning: str  # when the problem happens

    @property
    def type(self) -> str:
        """Where the service describes this kind of problem; a relative reference, as RFC 9457 allows."""
        return f"/problems/{self.code}"


def _described(module: ModuleType) -> Iterator[Row]:
    """Yield a row for every exception class of the module that has a title of its own."""
    classes = [cls for cls in vars(module).values() if isinstance(cls, type) and cls.__module__ == module.__name__]
    for cls in classes:
        if issubclass(cls, CodedError) and "title" in vars(cls):
            yield Row(cls.code, cls.status, cls.title, " ".join((inspect.getdoc(cls) or "").split()))


_ROWS = [
    *(row for module in (api, ledger, science) for row in _described(module)),
    *(Row(code, None, title, meaning) for code, (title, meaning) in ledger.JOB_FAILURES.items()),
]
BY_CODE = {row.code: row for row in sorted(_ROWS, key=lambda row: (row.status or 1000, row.code))}
TABLE = tuple(BY_CODE.values())
INTERNAL = BY_CODE[CodedError.code]

assert len(TABLE) == len(_ROWS), "a code is described twice"


def row_for(error: Exception) -> Row:
    """Return the row of the error's code; the row `internal` for exceptions that are not ours."""
    return BY_CODE.get(error.code, INTERNAL) if isinstance(error, CodedError) else INTERNAL
