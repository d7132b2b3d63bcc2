"""The optional libraries (torch-free): a command that lacks one says which extra of the package brings it.

All source code is in every installation. Only the third-party libraries are optional: the base installation has what
the client needs, `dfkd[teacher]` adds what makes a teacher's file of a PyTorch network (which brings PyTorch itself),
`dfkd[server]` adds what the service needs, and `dfkd[worker]` adds PyTorch and its companions.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, NoReturn

Extra = Literal["teacher", "server", "worker", "postgres", "s3"]

SERVER = (
    "alembic", "anyio", "celery", "fastapi", "h11", "kombu", "limits", "numpy", "onnx", "prometheus_client", "psutil",
    "pydantic_settings", "python_multipart", "redis", "safetensors", "sqlalchemy", "starlette", "uvicorn",
)  # fmt: skip
TEACHER = ("numpy", "onnx", "onnxruntime", "onnxscript", "safetensors")
WORKER = ("torch", "scipy")
MODULES = {
    "teacher": TEACHER,
    "server": SERVER,
    "worker": (*WORKER, *TEACHER, *SERVER),
    "postgres": ("psycopg",),
    "s3": ("boto3", "botocore"),
}
"""Extra → the modules that it brings. A test holds these lists against pyproject.toml."""

USAGE_STATUS = 2


class MissingExtra(Exception):
    """A command needs libraries that an extra of the package would bring."""

    def __init__(self, extra: Extra, missing: Sequence[str]) -> None:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        super().__init__(f"this command needs {missing[0]}{more}: pip install 'dfkd[{extra}]'")
        self.extra = extra


def require(extra: Extra) -> None:
    """Check that the libraries of an extra are installed, without importing them.

    Raises:
        MissingExtra: at least one is not installed.
    """
    missing = [name for name in MODULES[extra] if name not in sys.modules and find_spec(name) is None]
    if missing:
        raise MissingExtra(extra, missing)


def require_export() -> None:
    """Check that networks can be exported. PyTorch comes with the network; the extra `teacher` does not bring it.

    Raises:
        MissingExtra: PyTorch or a library of the extra is not installed.
    """
    if "torch" not in sys.modules and find_spec("torch") is None:
        raise MissingExtra("worker", ["torch"])
    require("teacher")


def require_or_exit(extra: Extra, *, program: str) -> None:
    """End a program that cannot run without an extra."""
    try:
        require(extra)
    except MissingExtra as error:
        exit_without(error, program=program)


def exit_without(error: MissingExtra, *, program: str) -> NoReturn:
    """Name the missing extra in one line on standard error, and end the program with status 2."""
    sys.stderr.write(f"{program}: {error}\n")
    sys.exit(USAGE_STATUS)
