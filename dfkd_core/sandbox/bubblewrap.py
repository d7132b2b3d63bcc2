"""A box made by bubblewrap, where that is installed: the same furniture, said in its options."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from dfkd_core.sandbox.policy import Mount
from dfkd_core.sandbox.syscalls import HOST_NAME

_RIGHTS = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")  # of root, and only until it has become somebody else


def find() -> str | None:
    """Where the program is."""
    return shutil.which("bwrap")


def command(program: str, mounts: list[Mount], *, privileged: bool) -> list[str]:
    """What comes before the boxed command. `privileged`: as root, without a user namespace."""
    words = [program, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--cap-drop", "ALL", *(word for right in _RIGHTS for word in ("--cap-add", right))] if privileged else []
    words += [] if privileged else ["--unshare-user"]
    words += ["--hostname", HOST_NAME, "--die-with-parent", "--new-session"]
    made = {Path("/")}
    for mount in mounts:
        for parent in reversed(Path(mount.path).parents):  # by itself bubblewrap makes some that only root may enter
            words += [] if parent in made else ["--perms", "0755", "--dir", str(parent)]
            made.add(parent)
        made.add(Path(mount.path))
        words += _options(mount)
    return [*words, "--chdir", "/", "--"]


def _options(mount: Mount) -> Iterator[str]:
    kind, path, source = mount
    if kind in ("tmpfs", "anybodys"):
        yield from ("--perms", "0755" if kind == "tmpfs" else "1777", "--size", source, "--tmpfs", path)
    elif kind in ("directory", "proc", "seal"):
        yield from ({"directory": "--dir", "proc": "--proc", "seal": "--remount-ro"}[kind], path)
    else:
        names = {"read": "--ro-bind", "write": "--bind", "device": "--dev-bind", "link": "--symlink"}
        yield from (names[kind], source, path)
