"""A sandbox made by bubblewrap, where that is installed: the policy's mounts, said in bubblewrap's options."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from dfkd_core.sandbox.policy import Mount
from dfkd_core.sandbox.syscalls import HOST_NAME

_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")  # of root, only until the entrypoint becomes another user


def find() -> str | None:
    """Return the path of the program, or None where it is not installed."""
    return shutil.which("bwrap")


def command(program: str, mounts: list[Mount], *, privileged: bool) -> list[str]:
    """Return the words that stand before the sandboxed command. `privileged`: run as root, without a user namespace."""
    words = [program, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if privileged:
        words += ["--cap-drop", "ALL", *(word for name in _CAPABILITIES for word in ("--cap-add", name))]
    else:
        words += ["--unshare-user"]
    words += ["--hostname", HOST_NAME, "--die-with-parent", "--new-session"]
    made = {Path("/")}
    for mount in mounts:
        for parent in reversed(Path(mount.path).parents):  # those that bubblewrap makes by itself only root can enter
            words += [] if parent in made else ["--perms", "0755", "--dir", str(parent)]
            made.add(parent)
        made.add(Path(mount.path))
        words += _options(mount)
    return [*words, "--chdir", "/", "--"]


def _options(mount: Mount) -> Iterator[str]:
    kind, path, source = mount
    if kind in ("tmpfs", "world_writable"):
        yield from ("--perms", "0755" if kind == "tmpfs" else "1777", "--size", source, "--tmpfs", path)
    elif kind in ("directory", "proc", "read_only"):
        yield from ({"directory": "--dir", "proc": "--proc", "read_only": "--remount-ro"}[kind], path)
    else:
        names = {"read": "--ro-bind", "write": "--bind", "device": "--dev-bind", "link": "--symlink"}
        yield from (names[kind], source, path)
