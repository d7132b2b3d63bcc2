"""Linux system calls that Python has no function for. They raise OSError.

This module is loaded between the start of a sandbox and its command, so it imports as little as possible.
"""

import ctypes
import os
import sys

HOST_NAME = "sandbox"

_SIGKILL, _SIG_SETMASK = 9, 2  # importing the module signal costs ten milliseconds
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_MNT_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000


def prctl(option: int, value: int, argument: object = 0) -> None:
    """Call prctl(2)."""
    _check(_LIBC.prctl(option, value, argument, 0, 0), f"prctl {option}")


def die_with_parent() -> None:
    """Have the kernel send SIGKILL when the thread that started this process ends. The setting survives exec."""
    prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def die_with(parent: int) -> None:
    """Call `die_with_parent`, and exit at once if the process `parent` is gone already. Elsewhere than on Linux, only
    the second half is possible.
    """
    if sys.platform == "linux":
        die_with_parent()
    if os.getppid() != parent:
        os._exit(1)


def unblock_signals() -> None:
    """Unblock all signals, which the launcher blocked."""
    _check(_LIBC.sigprocmask(_SIG_SETMASK, bytes(128), None), "sigprocmask")


def capset(header: bytes, data: bytes) -> None:
    """Call capset(2)."""
    _check(_LIBC.capset(header, data), "capset")


def unshare(flags: int) -> None:
    """Call unshare(2)."""
    _check(_LIBC.unshare(flags), "unshare")


def set_host_name(name: str) -> None:
    """Call sethostname(2)."""
    _check(_LIBC.sethostname(name.encode(), len(name)), "sethostname")


def mount(source: str | None, path: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Call mount(2)."""
    words = [None if word is None else word.encode() for word in (source, path, kind, options)]
    _check(_LIBC.mount(words[0], words[1], words[2], flags, words[3]), f"mount {path}")


def detach(path: str) -> None:
    """Call umount2(2) with MNT_DETACH: the mount leaves the tree even if a process still uses it."""
    _check(_LIBC.umount2(path.encode(), _MNT_DETACH), f"umount {path}")


def set_mount_attributes(path: str, attributes: int, *, recursive: bool) -> None:
    """Add attributes with mount_setattr(2), Linux 5.12. Read-only, nosuid and nodev have the numbers of mount(2)."""
    request = b"".join(number.to_bytes(8, "little") for number in (attributes, 0, 0, 0))
    flags = _AT_RECURSIVE if recursive else 0
    result = _LIBC.syscall(_MOUNT_SETATTR, _AT_FDCWD, path.encode(), flags, request, len(request))
    _check(result, f"mount_setattr {path}")


def pivot_root(new: str, old: str) -> None:
    """Call pivot_root(2)."""
    _check(_LIBC.syscall(_PIVOT_ROOT[os.uname().machine], new.encode(), old.encode()), "pivot_root")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
