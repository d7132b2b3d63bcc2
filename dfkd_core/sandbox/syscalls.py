"""Calls of Linux that Python has no name for. Raise OSError. Loaded between start and command, so it loads little."""

import ctypes
import os

HOST_NAME = "box"

_SIGKILL, _SIG_SETMASK = 9, 2  # the module signal costs ten milliseconds
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def prctl(option: int, value: int, argument: object = 0) -> None:
    """prctl(2)."""
    _check(_LIBC.prctl(option, value, argument, 0, 0), f"prctl {option}")


def die_with_parent() -> None:
    """Ask for SIGKILL when the thread that started this process ends."""
    prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def unblock_signals() -> None:
    """All of them."""
    _check(_LIBC.sigprocmask(_SIG_SETMASK, bytes(128), None), "sigprocmask")


def capset(header: bytes, data: bytes) -> None:
    """capset(2)."""
    _check(_LIBC.capset(header, data), "capset")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_LIBC.unshare(flags), "unshare")


def set_host_name(name: str) -> None:
    """sethostname(2)."""
    _check(_LIBC.sethostname(name.encode(), len(name)), "sethostname")


def mount(source: str | None, path: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    words = [None if word is None else word.encode() for word in (source, path, kind, options)]
    _check(_LIBC.mount(words[0], words[1], words[2], flags, words[3]), f"mount {path}")


def detach(path: str) -> None:
    """umount2(2), whoever still uses what is mounted there."""
    _check(_LIBC.umount2(path.encode(), 2), f"umount {path}")


def set_mount_attributes(path: str, attributes: int, *, recursive: bool) -> None:
    """mount_setattr(2), Linux 5.12: adds attributes. Read-only, nosuid and nodev have the numbers of mount(2)."""
    wanted = b"".join(number.to_bytes(8, "little") for number in (attributes, 0, 0, 0))
    flags = 0x8000 if recursive else 0
    _check(_LIBC.syscall(442, -100, path.encode(), flags, wanted, len(wanted)), f"mount_setattr {path}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _check(_LIBC.syscall(_PIVOT_ROOT[os.uname().machine], new.encode(), old.encode()), "pivot_root")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
