"""Which box the tests run in: the one that works here, or none, said aloud, where none does."""

import os
from collections.abc import Sequence
from functools import cache

import pytest

from dfkd_core.errors import SandboxUnavailable
from dfkd_core.sandbox.detect import find_box
from dfkd_core.sandbox.launch import Box, Kind

VARIABLE = "DFKD_SANDBOX"
KINDS = (Kind.BUBBLEWRAP, Kind.NAMESPACES)


@cache
def works(kind: Kind) -> str | None:
    """Why this host makes no such box; None: it does."""
    try:
        find_box(kind.value)
    except SandboxUnavailable as error:
        return "; ".join(error.reasons)
    return None


def box_or_skip(kind: Kind) -> Box:
    """A box of a kind, or the test is skipped and says what is missing."""
    reason = works(kind)
    if reason is not None:
        pytest.skip(reason)
    return find_box(kind.value)


def holds_a_box(words: Sequence[str]) -> bool:
    """Whether a command line is that of a process around a boxed command, which names the command too."""
    return "-I" in words


def settle() -> None:
    """Have every process that a test starts use a box, or no box where this host makes none."""
    os.environ.pop(VARIABLE, None)
    if all(works(kind) is not None for kind in KINDS):
        os.environ[VARIABLE] = Kind.OFF.value


def forget_settings() -> None:
    """The machine's own settings are not part of a test; what `settle` found out is."""
    for name in [name for name in os.environ if name.startswith("DFKD_") and name != VARIABLE]:
        del os.environ[name]
