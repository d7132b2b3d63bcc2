"""A sandbox of kernel namespaces, made without another program by an interpreter that has loaded nothing else.

Arguments:
    MAP          `uid:gid`, where only a user namespace gives the right to mount; `-` as root
    COUNT        the number of mounts that follow, each as three words: kind, path and source (`policy.Mount`)
    ARGUMENT...  the arguments of `entrypoint`

The exit status is that of the command, or 128 + n where signal n ended it. Two processes stay beside the command and
hold none of its pipes: this one, whose death makes the kernel end the sandbox, and the first process of the sandbox,
which reaps orphans.
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

Step = tuple[str, str, str]
"""The kind, path and source of one mount."""


def main() -> None:
    """Make the namespaces, start the first process in them, and wait for its end."""
    mapped, count, *rest = sys.argv[1:]
    end = 3 * int(count)
    steps = list(zip(rest[0:end:3], rest[1:end:3], rest[2:end:3], strict=True))
    syscalls.die_with_parent()
    _unshare(mapped)
    _run_in_child(lambda: _first_process(steps, rest[end:]))


def _first_process(steps: list[Step], arguments: list[str]) -> None:
    syscalls.die_with_parent()
    syscalls.set_host_name(syscalls.HOST_NAME)
    _mount_root(steps)
    _run_in_child(lambda: entrypoint.confine_and_execute(arguments))


def _run_in_child(act: Callable[[], None]) -> None:
    """Call `act` in a child process, reap every process that ends, and exit with the child's status.

    The parent closes all its files, so that no pipe stays open on its account.
    """
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException as error:  # the child must never return into the parent's code
            os.write(2, f"the sandbox could not be made: {error}\n".encode())
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


def _mount_root(steps: list[Step]) -> None:
    """Build the new root file system beside the host's, then detach the host's."""
    syscalls.mount(None, "/", None, _REC | _SLAVE)
    syscalls.mount("sandbox", _BASE, "tmpfs", _NOSUID | _NODEV)
    for name in (_OLD, _NEW):
        os.mkdir(_BASE + name)
    syscalls.mount("sandbox", _BASE + _NEW, "tmpfs", _NOSUID | _NODEV, "size=4m,mode=755")
    syscalls.pivot_root(_BASE, _BASE + _OLD)
    os.chdir("/")
    os.umask(0)
    for kind, path, source in steps:
        _mount(kind, _NEW if path == "/" else _NEW + path, source)
    os.umask(0o022)
    os.chdir(_NEW)
    syscalls.pivot_root(".", ".")
    syscalls.detach(".")
    os.chdir("/")


def _mount(kind: str, path: str, source: str) -> None:
    if kind == "link":
        _make_directory(os.path.dirname(path))
        os.symlink(source, path)
    elif kind == "directory":
        _make_directory(path)
    elif kind == "read_only":
        syscalls.set_mount_attributes(path, _RDONLY, recursive=False)
    elif kind == "proc":
        _make_directory(path)
        syscalls.mount("proc", path, "proc", _NOSUID | _NODEV | _NOEXEC)
    elif kind in ("tmpfs", "world_writable"):
        _make_directory(path)
        mode = "755" if kind == "tmpfs" else "1777"
        syscalls.mount("sandbox", path, "tmpfs", _NOSUID | _NODEV, f"size={source},mode={mode}")
    else:
        _bind(kind, _OLD + source, path)


def _bind(kind: str, source: str, path: str) -> None:
    """Bind `source` with everything mounted below it to `path`; only the kind `write` can be changed through it."""
    if os.path.isdir(source):
        _make_directory(path)
    elif not os.path.exists(path):
        _make_directory(os.path.dirname(path))
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    syscalls.mount(source, path, None, _BIND | _REC)
    syscalls.set_mount_attributes(path, _ATTRIBUTES[kind], recursive=True)


def _make_directory(path: str) -> None:
    """Make a directory and its parents, which every user can enter."""
    if not os.path.isdir(path):
        _make_directory(os.path.dirname(path))
        os.mkdir(path, 0o755)
