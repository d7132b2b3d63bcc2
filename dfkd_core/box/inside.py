"""The last step before a boxed command, run inside: `python -I -S inside.py STEP COMMAND...`; imports nothing of ours.

STEP is JSON: `limits` (name of a resource → value), `parent` (whose death ends us), `user` (of whom to become, or
null), `filter` (a program for seccomp in hexadecimal, or ""). What cannot be done ends the process: the command never
runs with less protection than was asked for.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from contextlib import suppress

_LIBC = ctypes.CDLL(None, use_errno=True)
_PDEATHSIG, _SECCOMP, _CAPBSET_DROP, _NO_NEW_PRIVS, _CAP_AMBIENT = 1, 22, 24, 38, 47
_SECCOMP_FILTER, _AMBIENT_CLEAR_ALL = 2, 4
_CAPABILITY_VERSION, _LAST_CAPABILITY = 0x20080522, 63


def main() -> None:
    """Bind ourselves, then become the command."""
    step, command = json.loads(sys.argv[1]), sys.argv[2:]
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with suppress(PermissionError):  # a leader already
        os.setsid()
    for name, value in step["limits"].items():
        _limit(getattr(resource, f"RLIMIT_{name}"), value)
    _drop_privileges(step["user"])
    _prctl(_NO_NEW_PRIVS, 1)
    _prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != step["parent"]:
        os._exit(1)
    if step["filter"]:
        _filter(bytes.fromhex(step["filter"]))
    os.execv(command[0], command)  # noqa: S606


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (most, most))


def _drop_privileges(user: int | None) -> None:
    """No capability is left, none can come back; with `user`, no file of ours belongs to us either."""
    for capability in range(_LAST_CAPABILITY + 1):
        _LIBC.prctl(_CAPBSET_DROP, capability, 0, 0, 0)  # refused where we may not, or there is none such
    _LIBC.prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    nothing = struct.pack("=6I", 0, 0, 0, 0, 0, 0)
    if _LIBC.capset(struct.pack("=Ii", _CAPABILITY_VERSION, 0), nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _filter(program: bytes) -> None:
    memory = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(memory))
    _prctl(_SECCOMP, _SECCOMP_FILTER, ctypes.create_string_buffer(head, len(head)))


def _prctl(option: int, value: int, argument: object = 0) -> None:
    if _LIBC.prctl(option, value, argument, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    main()
