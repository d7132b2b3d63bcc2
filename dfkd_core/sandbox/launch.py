"""Starts a command in a box, of whichever kind."""

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
from dfkd_core.sandbox.policy import ROOT, Limits, Plan

_SYS_ADMIN = 1 << 21
_OWN_COUNT = (5, 14)  # from this kernel on a user namespace has a count of processes of its own
_USERS, _FIRST_USER = 4000, 61184  # a range that systemd keeps for users that exist for one service only
_GROUP_READ, _ENTER = 0o040, 0o010


class Kind(StrEnum):
    """Of what a box is made."""

    BUBBLEWRAP = "bubblewrap"
    NAMESPACES = "namespaces"
    OFF = "off"  # of nothing: limits only


@dataclass(frozen=True, slots=True)
class Box:
    """How boxes are made on this host; `probe.find_box` finds out."""

    kind: Kind
    own_proc: bool = True

    @property
    def told(self) -> str:
        """For people."""
        return self.kind.value + ("" if self.own_proc else " without /proc")

    def parent(self) -> int:
        """The number that a boxed command sees as its parent's."""
        return os.getpid() if self.kind is Kind.OFF else 1

    def start(
        self, command: Sequence[str], plan: Plan, *, directory: Path, pass_fds: Sequence[int] = (), **streams: Any
    ) -> "subprocess.Popen[bytes]":
        """Start `command` (its first word a path); the process that is returned ends when the command has.

        Its exit status is for `exit_status`. Killing it, or the end of the thread that called this, ends everything in
        the box. `plan.environment` is all that the command finds in its environment. OSError.
        """
        user = _stranger() if self.kind is not Kind.OFF and _privileged() else None
        if user is not None:
            _hand_over(plan, user)
        words = [*self._shell(plan), *_inside(self, plan.limits, user, directory), *command]
        deaf = set() if self.kind is Kind.OFF else {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, deaf)
        try:  # a signal for all processes of the service is not for the box: who wants it to end, tells its command
            return subprocess.Popen(
                words,
                env=dict(plan.environment or {}),
                cwd="/",
                pass_fds=tuple(pass_fds),
                start_new_session=True,
                **streams,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _shell(self, plan: Plan) -> list[str]:
        if self.kind is Kind.OFF:
            return _program("entrypoint")
        mounts = plan.mounts(own_proc=self.own_proc)
        if self.kind is Kind.BUBBLEWRAP:
            program = bubblewrap.find()
            if program is None:
                raise FileNotFoundError("bwrap")
            return [*bubblewrap.command(program, mounts, privileged=_privileged()), *_program("entrypoint")]
        mapped = "-" if _privileged() else f"{os.getuid()}:{os.getgid()}"
        return [*_program("namespaces"), mapped, str(len(mounts)), *(word for mount in mounts for word in mount)]


def exit_status(code: int) -> int:
    """A box's exit status as the command's: -n for signal n."""
    return 128 - code if code > 128 else code


def _inside(box: Box, limits: Limits, user: int | None, directory: Path) -> list[str]:
    told = limits.by_name()
    if box.kind is Kind.OFF or (user is None and _kernel() < _OWN_COUNT):
        told.pop("NPROC", None)  # it would count everything that this user runs
    program = b"" if box.kind is Kind.OFF else seccomp.program()
    become = "keep" if box.kind is Kind.OFF else "-" if user is None else str(user)
    words = [str(box.parent()), become, str(directory), program.hex() or "-"]
    return [*words, str(len(told)), *(f"{name}={value}" for name, value in told.items())]


def _program(name: str) -> list[str]:
    """An interpreter that loads one module of ours and what that needs, and looks nowhere for more."""
    code = f"import sys; sys.path.append({str(ROOT)!r}); from dfkd_core.sandbox.{name} import main; main()"
    return [sys.executable, "-I", "-S", "-c", code]


@cache
def _privileged() -> bool:
    """Whether we may furnish a box ourselves, and so should have somebody else live in it."""
    if os.getuid() != 0:
        return False
    status = Path("/proc/self/status").read_text()
    (capabilities,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(capabilities, 16) & _SYS_ADMIN)


@cache
def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(character for character in minor if character.isdigit()))


def _stranger() -> int:
    """A user and group that nobody else is, most likely: boxes beside each other share no count of processes."""
    return _FIRST_USER + secrets.randbelow(_USERS)


def _hand_over(plan: Plan, user: int) -> None:
    """Let the stranger read what it is given, and own what it writes to; around both lie directories of ours."""
    for top in plan.given:
        for path in (top, *top.rglob("*")) if top.is_dir() else (top,):
            os.chown(path, -1, user)
            path.chmod(path.stat().st_mode | _GROUP_READ | (_ENTER if path.is_dir() else 0))
    if plan.writable is not None:
        for path in (plan.writable, *plan.writable.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)


def minimal_environment(base: Mapping[str, str]) -> dict[str, str]:
    """What any process needs, and nothing that says who we are."""
    return {name: base[name] for name in ("PATH", "LANG") if name in base}
