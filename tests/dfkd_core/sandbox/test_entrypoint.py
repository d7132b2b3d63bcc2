"""The last step before a sandboxed command."""

import os
import subprocess
import sys

from tests.patience import PATIENCE

ENTRYPOINT = "from dfkd_core.sandbox.entrypoint import main; main()"


def executed(parent: int) -> "subprocess.CompletedProcess[bytes]":
    """How the entrypoint ends that is to run `echo` for the process `parent`, without a sandbox."""
    words = [str(parent), "keep", "/", "-", "0", "/bin/echo", "started"]
    return subprocess.run(
        [sys.executable, "-c", ENTRYPOINT, *words], capture_output=True, check=False, timeout=PATIENCE
    )


def test_a_command_starts_for_the_process_that_asked_for_it() -> None:
    ended = executed(os.getpid())
    assert (ended.returncode, ended.stdout) == (0, b"started\n")


def test_a_command_of_another_parent_does_not_start() -> None:
    ended = executed(1)
    assert (ended.returncode, ended.stdout) == (1, b"")
