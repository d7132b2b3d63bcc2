"""Which sandbox the tests run in: the one that works here, or none, said aloud, where none does."""

import os
from collections.abc import Sequence
from functools import cache

import pytest

from dfkd_core.errors import SandboxUnavailable
from dfkd_core.sandbox.detect import find_sandbox
from dfkd_core.sandbox.launch import Sandbox, SandboxKind

VARIABLE = "DFKD_SANDBOX"
KINDS = (SandboxKind.BUBBLEWRAP, SandboxKind.NAMESPACES)


@cache
def works(kind: SandboxKind) -> str | None:
    """Why this host makes no such sandbox; None: it does."""
    try:
        find_sandbox(kind.value)
    except SandboxUnavailable as error:
        return "; ".join(error.reasons)
    return None


def sandbox_or_skip(kind: SandboxKind) -> Sandbox:
    """A sandbox of a kind, or the test is skipped and says what is missing."""
    reason = works(kind)
    if reason is not None:
        pytest.skip(reason)
    return find_sandbox(kind.value)


def is_sandbox_process(words: Sequence[str]) -> bool:
    """Whether a command line is that of a process around a sandboxed command, which names the command too."""
    return "-I" in words


def choose_sandbox() -> None:
    """Have every process that a test starts use a sandbox, or no sandbox where this host makes none."""
    os.environ.pop(VARIABLE, None)
    if all(works(kind) is not None for kind in KINDS):
        os.environ[VARIABLE] = SandboxKind.OFF.value


def clear_settings() -> None:
    """The machine's own settings are not part of a test; what `choose_sandbox` found out is."""
    for name in [name for name in os.environ if name.startswith("DFKD_") and name != VARIABLE]:
        del os.environ[name]
