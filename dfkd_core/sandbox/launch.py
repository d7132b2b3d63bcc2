"""Start a command in a sandbox of any kind."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from dfkd_core.sandbox import bubblewrap, seccomp
from dfkd_core.sandbox.policy import ROOT, ResourceLimits, SandboxPolicy

_CAP_SYS_ADMIN = 1 << 21
_OWN_PROCESS_COUNT = (5, 14)  # from this kernel version on, a user namespace counts its processes separately
_NUM_UIDS, _FIRST_UID = 4000, 61184  # the range that systemd reserves for users that live as long as one service
_GROUP_READ, _GROUP_ENTER = 0o040, 0o010


class SandboxKind(StrEnum):
    """The mechanism that makes the sandbox."""

    BUBBLEWRAP = "bubblewrap"
    NAMESPACES = "namespaces"
    OFF = "off"  # no isolation: resource limits only


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How sandboxes are made on this host; `detect.find_sandbox` finds out."""

    kind: SandboxKind
    own_proc: bool = True

    @property
    def label(self) -> str:
        """The kind in words, for logs and /readyz."""
        return self.kind.value + ("" if self.own_proc else " without /proc")

    def start(
        self,
        command: Sequence[str],
        policy: SandboxPolicy,
        *,
        directory: Path,
        pass_fds: Sequence[int] = (),
        **streams: Any,
    ) -> "subprocess.Popen[bytes]":
        """Start `command`, whose first word is a path, with `policy.environment` as its whole environment.

        The process that is returned ends when the command has ended; `exit_status` translates its exit code. Everything
        in the sandbox ends when that process is killed, or when the thread that called this ends.

        Raises:
            OSError: the host cannot start the process.
        """
        uid = _ephemeral_uid() if self.kind is not SandboxKind.OFF and _privileged() else None
        if uid is not None:
            _grant_access(policy, uid)
        words = [*self._outer_command(policy), *_entrypoint_words(self, policy.limits, uid, directory), *command]
        # A service manager signals every process of the service. Such a signal must not end the sandbox: the
        # supervisor tells the command itself to stop.
        blocked = set() if self.kind is SandboxKind.OFF else {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            return subprocess.Popen(
                words,
                env=dict(policy.environment or {}),
                cwd="/",
                pass_fds=tuple(pass_fds),
                start_new_session=True,
                **streams,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _outer_command(self, policy: SandboxPolicy) -> list[str]:
        """Return the command that builds the sandbox and then runs the entrypoint in it."""
        if self.kind is SandboxKind.OFF:
            return _isolated_python("entrypoint")
        mounts = policy.mounts(own_proc=self.own_proc)
        if self.kind is SandboxKind.BUBBLEWRAP:
            program = bubblewrap.find()
            if program is None:
                raise FileNotFoundError("bwrap")
            return [*bubblewrap.command(program, mounts, privileged=_privileged()), *_isolated_python("entrypoint")]
        mapped = "-" if _privileged() else f"{os.getuid()}:{os.getgid()}"
        words = [word for mount in mounts for word in mount]
        return [*_isolated_python("namespaces"), mapped, str(len(mounts)), *words]


def exit_status(code: int) -> int:
    """Translate a sandbox's exit code into that of its command: -n where signal n ended the command."""
    return 128 - code if code > 128 else code


def minimal_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `base` that any process needs and that reveal nothing about us."""
    return {name: base[name] for name in ("PATH", "LANG") if name in base}


def _entrypoint_words(sandbox: Sandbox, limits: ResourceLimits, uid: int | None, directory: Path) -> list[str]:
    """Return the arguments of `entrypoint`, which that module describes, without the command."""
    isolated = sandbox.kind is not SandboxKind.OFF
    parent = 1 if isolated else os.getpid()  # in a sandbox the parent is the first process of its PID namespace
    named = limits.by_name()
    if not isolated or (uid is None and _kernel_version() < _OWN_PROCESS_COUNT):
        named.pop("NPROC", None)  # it would count every process of this user
    program = seccomp.program() if isolated else b""
    user = "keep" if not isolated else "-" if uid is None else str(uid)
    words = [str(parent), user, str(directory), program.hex() or "-"]
    return [*words, str(len(named)), *(f"{name}={value}" for name, value in named.items())]


def _isolated_python(module: str) -> list[str]:
    """Return the command of an interpreter that runs one module of this folder and looks nowhere else for code."""
    code = f"import sys; sys.path.append({str(ROOT)!r}); from dfkd_core.sandbox.{module} import main; main()"
    return [sys.executable, "-I", "-S", "-c", code]


@cache
def _privileged() -> bool:
    """Return whether this process is root with CAP_SYS_ADMIN, which can mount, and so must run commands as another
    user.
    """
    if os.getuid() != 0:
        return False
    status = Path("/proc/self/status").read_text()
    (capabilities,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(capabilities, 16) & _CAP_SYS_ADMIN)


@cache
def _kernel_version() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(character for character in minor if character.isdigit()))


def _ephemeral_uid() -> int:
    """Draw a user and group id for one sandbox. Sandboxes with different ids share no process count."""
    return _FIRST_UID + secrets.randbelow(_NUM_UIDS)


def _grant_access(policy: SandboxPolicy, uid: int) -> None:
    """Let the ephemeral user read its inputs and own its writable directory. The directories above both stay ours."""
    for top in policy.inputs:
        for path in (top, *top.rglob("*")) if top.is_dir() else (top,):
            os.chown(path, -1, uid)
            path.chmod(path.stat().st_mode | _GROUP_READ | (_GROUP_ENTER if path.is_dir() else 0))
    if policy.writable is not None:
        for path in (policy.writable, *policy.writable.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
