"""A box of the kernel's namespaces without another program, made by an interpreter that has loaded nothing else.

Words: MAP (user:group, where a user namespace has to give the rights to furnish; - as root), the number of mounts,
kind, path and source of each (`plan.Mount`), and what `inside` wants. The exit status is the command's, or 128 + n
where signal n ended it. Beside the command two processes stay: this one, by whose death the kernel ends the box, and
the first process of the box, which reaps; they hold none of its pipes.
"""

import os
import sys
from collections.abc import Callable

from dfkd_core.sandbox import entrypoint, syscalls

_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _SLAVE = 1, 2, 4, 8, 4096, 16384, 1 << 19
_ATTRIBUTES = {"read": _RDONLY | _NOSUID | _NODEV, "write": _NOSUID | _NODEV, "device": _NOSUID}
_BASE, _OLD, _NEW = "/tmp", "/old", "/new"  # noqa: S108
_MAX_FILES = 65536


def main() -> None:
    """Make the namespaces, furnish the box in their first process, wait."""
    mapped, count, *rest = sys.argv[1:]
    end = 3 * int(count)
    steps = list(zip(rest[0:end:3], rest[1:end:3], rest[2:end:3], strict=True))
    syscalls.die_with_parent()
    _unshare(mapped)
    _wait_for(lambda: _first_process(steps, rest[end:]))


def _first_process(steps: list[tuple[str, str, str]], words: list[str]) -> None:
    syscalls.die_with_parent()
    syscalls.set_host_name(syscalls.HOST_NAME)
    _furnish(steps)
    _wait_for(lambda: entrypoint.become(words))


def _wait_for(act: Callable[[], None]) -> None:
    """Do it in a child, and end as that does. Reaps whoever else ends; no pipe stays open on our account."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException as error:  # never back into the parent's code
            os.write(2, f"the box could not be made: {error}\n".encode())
        os._exit(1)
    os.closerange(0, _MAX_FILES)
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _unshare(mapped: str) -> None:
    flags = _NEWNS | _NEWCGROUP | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
    if mapped == "-":
        syscalls.unshare(flags)
        return
    user, group = mapped.split(":")
    syscalls.unshare(flags | _NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _furnish(steps: list[tuple[str, str, str]]) -> None:
    """Build the new root beside the old one, then leave the old one behind."""
    syscalls.mount(None, "/", None, _REC | _SLAVE)
    syscalls.mount("box", _BASE, "tmpfs", _NOSUID | _NODEV)
    for name in (_OLD, _NEW):
        os.mkdir(_BASE + name)
    syscalls.mount("box", _BASE + _NEW, "tmpfs", _NOSUID | _NODEV, "size=4m,mode=755")
    syscalls.pivot_root(_BASE, _BASE + _OLD)
    os.chdir("/")
    os.umask(0)
    for kind, path, source in steps:
        _step(kind, _NEW if path == "/" else _NEW + path, source)
    os.umask(0o022)
    os.chdir(_NEW)
    syscalls.pivot_root(".", ".")
    syscalls.detach(".")
    os.chdir("/")


def _step(kind: str, path: str, source: str) -> None:
    if kind == "link":
        _make_directory(os.path.dirname(path))
        os.symlink(source, path)
    elif kind == "directory":
        _make_directory(path)
    elif kind == "seal":
        syscalls.set_mount_attributes(path, _RDONLY, recursive=False)
    elif kind == "proc":
        _make_directory(path)
        syscalls.mount("proc", path, "proc", _NOSUID | _NODEV | _NOEXEC)
    elif kind in ("tmpfs", "anybodys"):
        _make_directory(path)
        mode = "755" if kind == "tmpfs" else "1777"
        syscalls.mount("box", path, "tmpfs", _NOSUID | _NODEV, f"size={source},mode={mode}")
    else:
        _bind(kind, _OLD + source, path)


def _bind(kind: str, source: str, path: str) -> None:
    """With everything mounted below it; what is seen of it cannot be changed unless it is to be written to."""
    if os.path.isdir(source):
        _make_directory(path)
    elif not os.path.exists(path):
        _make_directory(os.path.dirname(path))
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    syscalls.mount(source, path, None, _BIND | _REC)
    syscalls.set_mount_attributes(path, _ATTRIBUTES[kind], recursive=True)


def _make_directory(path: str) -> None:
    """With those above it, for everybody to enter."""
    if not os.path.isdir(path):
        _make_directory(os.path.dirname(path))
        os.mkdir(path, 0o755)
