"""Find out which kind of sandbox works on this host, by starting one."""

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
from dfkd_core.sandbox.launch import Sandbox, SandboxKind, exit_status, minimal_environment
from dfkd_core.sandbox.policy import ResourceLimits, SandboxPolicy

log = logging.getLogger(__name__)

SandboxChoice = Literal["auto", "bubblewrap", "namespaces", "off"]

_SECONDS = 20.0
_PROBE = "import os; print(os.getpid(), *(name for name in ('/etc/shadow', '/var/log') if os.path.exists(name)))"
_LOW_PIDS = 10  # a PID namespace of its own counts from 1, so a process in it has a number below this one

ADVICE = (
    "Install bubblewrap, or allow user namespaces (sysctl kernel.unprivileged_userns_clone or "
    "kernel.apparmor_restrict_unprivileged_userns, a container's seccomp profile). DFKD_SANDBOX=off reads teachers "
    "without a sandbox: only where you trust everyone who can upload."
)


@cache
def find_sandbox(choice: SandboxChoice) -> Sandbox:
    """Return the best sandbox that `choice` allows and that works here. A failure is not cached.

    Raises:
        SandboxUnavailable: none works; the error lists why each kind does not.
    """
    if choice == "off":
        return Sandbox(SandboxKind.OFF)
    reasons = []
    for sandbox in _candidates(choice):
        reason = _failure(sandbox)
        if reason is None:
            return sandbox
        reasons.append(f"{sandbox.label}: {reason}")
    log.error("no sandbox works on this host", extra={"reasons": reasons, "advice": ADVICE})
    raise SandboxUnavailable(reasons)


def _candidates(choice: SandboxChoice) -> Iterator[Sandbox]:
    for kind in (SandboxKind.BUBBLEWRAP, SandboxKind.NAMESPACES):
        if choice in ("auto", kind.value):
            yield from (Sandbox(kind, own_proc=own_proc) for own_proc in (True, False))


def _failure(sandbox: Sandbox) -> str | None:
    """Start a probe in the sandbox. Return why the sandbox does not work, or None where it does."""
    if sandbox.kind is SandboxKind.BUBBLEWRAP and bubblewrap.find() is None:
        return "not installed"
    if sys.platform != "linux":
        return "not Linux"
    limits = ResourceLimits(cpu_seconds=10, processes=8)
    try:
        with sandbox.start(
            [sys.executable, "-I", "-S", "-c", _PROBE],
            SandboxPolicy(limits=limits, environment=minimal_environment(os.environ)),
            directory=Path("/"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                output, error = process.communicate(timeout=_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                return "it did not answer"
    except OSError as failure:
        return str(failure)
    if exit_status(process.returncode) != 0:
        return error.decode(errors="replace").strip().rpartition("\n")[2][:300] or f"exit status {process.returncode}"
    pid, *visible = output.split()
    return None if int(pid) < _LOW_PIDS and not visible else "it does not separate"
