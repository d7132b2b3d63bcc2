"""A box of the kernel's namespaces without another program: `python -I -S namespaces.py SHELL COMMAND...`.

SHELL is JSON: `mounts` (the steps of `plan.Mount`), `directory` (where the command starts), `map` (our user and group
where a user namespace has to give the rights to furnish; null as root). Imports nothing of ours. Its exit status is the
command's, or 128 + n where signal n ended it. Beside the command two processes stay: this one, by whose death the
kernel ends the box, and the first process of the box, which reaps.
"""

import ctypes
import json
import os
import signal
import struct
import sys
from contextlib import suppress

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _SLAVE = 1, 2, 4, 8, 4096, 16384, 1 << 19
_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_SETATTR = -100, 0x8000, 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PDEATHSIG = 1
_BASE, _OLD, _NEW = "/tmp", "/old", "/new"
_ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def main() -> None:
    """Make the namespaces, furnish the box in their first process, wait."""
    shell, command = json.loads(sys.argv[1]), sys.argv[2:]
    _die_with_parent()
    _unshare(shell["map"])
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # the command is told by its pipe; we end when it has
    first = os.fork()
    if first == 0:
        _guarded(lambda: _first_process(shell, command))
    _close_all()
    os._exit(_status(first))


def _first_process(shell: dict, command: list[str]) -> None:  # type: ignore[type-arg]  # no import of ours, no typing
    _die_with_parent()
    _furnish([tuple(step) for step in shell["mounts"]])
    child = os.fork()
    if child == 0:
        os.chdir(shell["directory"])
        _guarded(lambda: os.execv(command[0], command))  # noqa: S606
    _close_all()
    os._exit(_status(child))


def _guarded(act) -> None:  # type: ignore[no-untyped-def]
    """A child never returns into its parent's code."""
    try:
        act()
    except BaseException as error:
        sys.stderr.write(f"the box could not be made: {error}\n")
        sys.stderr.flush()
    os._exit(1)


def _unshare(mapped: list[int] | None) -> None:
    flags = _NEWNS | _NEWCGROUP | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
    if mapped is None:
        _check(_LIBC.unshare(flags), "unshare")
        return
    user, group = mapped
    _check(_LIBC.unshare(flags | _NEWUSER), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _furnish(steps: list[tuple[str, str, str]]) -> None:
    """Build the new root beside the old one, then leave the old one behind."""
    _mount(None, "/", None, _REC | _SLAVE)
    _mount("box", _BASE, "tmpfs", _NOSUID | _NODEV)
    for name in (_OLD, _NEW):
        os.mkdir(_BASE + name)
    _mount("box", _BASE + _NEW, "tmpfs", _NOSUID | _NODEV, "size=4m,mode=755")
    _pivot_root(_BASE, _BASE + _OLD)
    os.chdir("/")
    for kind, path, source in steps:
        _step(kind, _NEW if path == "/" else _NEW + path, source)
    os.chdir(_NEW)
    _pivot_root(".", ".")
    _check(_LIBC.umount2(b".", _DETACH), "umount2")
    os.chdir("/")


def _step(kind: str, path: str, source: str) -> None:
    if kind == "link":
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(source, path)
    elif kind == "directory":
        os.makedirs(path, exist_ok=True)
    elif kind == "seal":
        _set_attributes(path, _RDONLY, recursive=False)
    elif kind in ("tmpfs", "proc"):
        os.makedirs(path, exist_ok=True)
        options = f"size={source},mode={'1777' if path.endswith(('/tmp', '/shm')) else '755'}"
        noexec = 0 if kind == "tmpfs" else _NOEXEC
        _mount("box", path, kind, _NOSUID | _NODEV | noexec, options if kind == "tmpfs" else None)
    else:
        _bind(kind, _OLD + source, path)


def _bind(kind: str, source: str, path: str) -> None:
    """With everything mounted below it; what is seen of it cannot be changed unless it is to be written to."""
    os.makedirs(path if os.path.isdir(source) else os.path.dirname(path), exist_ok=True)
    if not os.path.isdir(source) and not os.path.exists(path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    _mount(source, path, None, _BIND | _REC)
    attributes = {"read": _RDONLY | _NOSUID | _NODEV, "write": _NOSUID | _NODEV, "device": _NOSUID}[kind]
    _set_attributes(path, attributes, recursive=True)


def _set_attributes(path: str, attributes: int, *, recursive: bool) -> None:
    """mount_setattr(2): the flags are those of mount(2) for these three. Linux 5.12."""
    wanted = struct.pack("=4Q", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    _check(_LIBC.syscall(_MOUNT_SETATTR, _AT_FDCWD, path.encode(), flags, wanted, len(wanted)), f"seal {path}")


def _mount(source: str | None, path: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [word and word.encode() for word in (source, path, kind, options)]
    _check(_LIBC.mount(words[0], words[1], words[2], flags, words[3]), f"mount {path}")


def _pivot_root(new: str, old: str) -> None:
    _check(_LIBC.syscall(_PIVOT_ROOT[os.uname().machine], new.encode(), old.encode()), "pivot_root")


def _die_with_parent() -> None:
    _check(_LIBC.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def _status(child: int) -> int:
    """Reap whoever ends until the child does."""
    while True:
        ended, status = os.wait()
        if ended == child:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _close_all() -> None:
    """Whoever waits for the end of a pipe waits for the command alone."""
    with suppress(OSError):
        os.closerange(0, 65536)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
