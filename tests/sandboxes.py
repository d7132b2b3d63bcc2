"""Which sandbox the tests use: one that works on this host, or an explicit `off` if none does."""

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
    """Return why this kind of sandbox does not work on this host, or None where it works."""
    try:
        find_sandbox(kind.value)
    except SandboxUnavailable as error:
        return "; ".join(error.reasons)
    return None


def sandbox_or_skip(kind: SandboxKind) -> Sandbox:
    """Return a sandbox of this kind, or skip the test with the reason why there is none."""
    reason = works(kind)
    if reason is not None:
        pytest.skip(reason)
    return find_sandbox(kind.value)


def is_sandbox_process(words: Sequence[str]) -> bool:
    """Whether a command line belongs to a process around a sandboxed command, whose words it contains too."""
    return "-I" in words


def choose_sandbox() -> None:
    """Set the environment so that every process that a test starts uses a sandbox, or none where none works."""
    os.environ.pop(VARIABLE, None)
    if all(works(kind) is not None for kind in KINDS):
        os.environ[VARIABLE] = SandboxKind.OFF.value


def clear_settings() -> None:
    """Remove the machine's own settings from the environment, but keep the choice of `choose_sandbox`."""
    for name in [name for name in os.environ if name.startswith("DFKD_") and name != VARIABLE]:
        del os.environ[name]
