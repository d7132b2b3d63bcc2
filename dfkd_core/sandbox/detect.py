"""Which kind of box works here: found out by starting one."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

from dfkd_core.errors import SandboxUnavailable
from dfkd_core.sandbox import bubblewrap
from dfkd_core.sandbox.launch import Box, Kind, exit_status, minimal_environment
from dfkd_core.sandbox.policy import Limits, Plan

log = logging.getLogger(__name__)

Choice = Literal["auto", "bubblewrap", "namespaces", "off"]

_SECONDS = 20.0
_QUESTION = "import os; print(os.getpid(), *(name for name in ('/etc/shadow', '/var/log') if os.path.exists(name)))"
_FIRST_NUMBERS = 10  # of processes, where they are counted anew

ADVICE = (
    "Install bubblewrap, or allow user namespaces (sysctl kernel.unprivileged_userns_clone or "
    "kernel.apparmor_restrict_unprivileged_userns, a container's seccomp profile). DFKD_SANDBOX=off reads teachers "
    "without a sandbox: only where you trust everyone who can upload."
)


@cache
def find_box(choice: Choice) -> Box:
    """The best box of that choice; SandboxUnavailable, which is not remembered."""
    if choice == "off":
        return Box(Kind.OFF)
    reasons = []
    for box in _candidates(choice):
        reason = _trouble(box)
        if reason is None:
            return box
        reasons.append(f"{box.told}: {reason}")
    log.error("no sandbox works on this host", extra={"reasons": reasons, "advice": ADVICE})
    raise SandboxUnavailable(reasons)


def _candidates(choice: Choice) -> Iterator[Box]:
    for kind in (Kind.BUBBLEWRAP, Kind.NAMESPACES):
        if choice in ("auto", kind.value):
            yield from (Box(kind, own_proc=own_proc) for own_proc in (True, False))


def _trouble(box: Box) -> str | None:
    """Why the box does not work; None: it does."""
    if box.kind is Kind.BUBBLEWRAP and bubblewrap.find() is None:
        return "not installed"
    if sys.platform != "linux":
        return "not Linux"
    plan = Plan(limits=Limits(cpu_seconds=10, processes=8), environment=minimal_environment(os.environ))
    command = [sys.executable, "-I", "-S", "-c", _QUESTION]
    try:
        with box.start(
            command, plan, directory=Path("/"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            try:
                said, error = child.communicate(timeout=_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                return "it did not answer"
    except OSError as failure:
        return str(failure)
    if exit_status(child.returncode) != 0:
        return error.decode(errors="replace").strip().rpartition("\n")[2][:300] or f"exit status {child.returncode}"
    number, *seen = said.split()
    return None if int(number) < _FIRST_NUMBERS and not seen else "it does not separate"
