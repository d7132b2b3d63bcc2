"""The last step before a boxed command, run inside it by an interpreter that has loaded nothing else.

Words: PARENT (whose death ends us), USER (whom to become; - to stay who we are, without rights; keep where there is no
box), DIRECTORY (where to start), FILTER (a program for seccomp in hexadecimal, or -), the number of limits, each as
NAME=VALUE, and the command. What cannot be done ends the
process: the command never runs with less protection than was asked for.
"""

import ctypes
import os
import resource
import sys

from dfkd_core.sandbox import syscalls

_SECCOMP, _CAPBSET_DROP, _NO_NEW_PRIVS, _CAP_AMBIENT = 22, 24, 38, 47
_SECCOMP_FILTER, _AMBIENT_CLEAR_ALL = 2, 4
_CAPABILITY_VERSION, _LAST_CAPABILITY = 0x20080522, 63


def main() -> None:
    """With the words of this process."""
    become(sys.argv[1:])


def become(words: list[str]) -> None:
    """Bind this process, then become the command."""
    parent, user, directory, program, count, *rest = words
    limits, command = rest[: int(count)], rest[int(count) :]
    if os.getpid() != os.getsid(0):
        os.setsid()
    for limit in limits:
        name, value = limit.split("=")
        _limit(getattr(resource, f"RLIMIT_{name}"), int(value))
    if user != "keep":
        syscalls.unblock_signals()
        _drop_privileges(None if user == "-" else int(user))
    os.chdir(directory)
    if sys.platform == "linux":
        syscalls.prctl(_NO_NEW_PRIVS, 1)
        syscalls.die_with_parent()
    if os.getppid() != int(parent):
        os._exit(1)
    if program != "-":
        _filter(bytes.fromhex(program))
    os.execv(command[0], command)  # noqa: S606


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (most, most))


def _drop_privileges(user: int | None) -> None:
    """No capability is left, none can come back; with `user`, no file of ours belongs to us either."""
    try:
        for capability in range(_LAST_CAPABILITY + 1):
            syscalls.prctl(_CAPBSET_DROP, capability)
    except OSError:  # the last one is passed, or we may not: then there is nothing to drop
        pass
    syscalls.prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = _CAPABILITY_VERSION.to_bytes(4, "little") + bytes(4)
    syscalls.capset(header, bytes(24))


def _filter(program: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("codes", ctypes.c_char_p))

    told = Program(len(program) // 8, program)
    syscalls.prctl(_SECCOMP, _SECCOMP_FILTER, ctypes.byref(told))
