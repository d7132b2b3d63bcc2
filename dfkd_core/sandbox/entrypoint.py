"""The last step before a sandboxed command, run inside the sandbox by an interpreter that has loaded nothing else.

Arguments:
    PARENT      the process id whose death ends this process
    USER        a uid to become; `-` to keep the user without any capability; `keep` where there is no sandbox
    DIRECTORY   the working directory of the command
    FILTER      a seccomp program in hexadecimal, or `-`
    COUNT       the number of limits that follow, each as NAME=VALUE
    COMMAND...  the command and its arguments

A step that fails ends the process, so the command never runs with less protection than was asked for.
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
    """Run with the arguments of this process."""
    confine_and_execute(sys.argv[1:])


def confine_and_execute(arguments: list[str]) -> None:
    """Confine this process, then execute the command in it."""
    parent, user, directory, program, count, *rest = arguments
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
    syscalls.die_with(int(parent))  # after the change of user, which clears the setting
    if program != "-":
        _install_filter(bytes.fromhex(program))
    os.execv(command[0], command)  # noqa: S606


def _limit(which: int, value: int) -> None:
    """Set the soft and the hard limit to `value`, or to the hard limit of today where that is lower."""
    hard = resource.getrlimit(which)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (most, most))


def _drop_privileges(uid: int | None) -> None:
    """Drop every capability for good. With a `uid`, become that user, to whom none of our files belong."""
    try:
        for capability in range(_LAST_CAPABILITY + 1):
            syscalls.prctl(_CAPBSET_DROP, capability)
    except OSError:  # past the kernel's last capability, or without the right to drop any: nothing is left to drop
        pass
    syscalls.prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = _CAPABILITY_VERSION.to_bytes(4, "little") + bytes(4)
    syscalls.capset(header, bytes(24))


def _install_filter(program: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("codes", ctypes.c_char_p))

    filter_program = Program(len(program) // 8, program)
    syscalls.prctl(_SECCOMP, _SECCOMP_FILTER, ctypes.byref(filter_program))
