"""Try, inside a sandbox, the attacks of a hostile file that runs code: `canaries.py WISHES`.

WISHES is JSON. Prints the names of the granted wishes as JSON: a tight sandbox prints an empty list.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, PTRACE_ATTACH, PR_GET_NO_NEW_PRIVS = 0x10000000, 16, 39
MOST_PROCESSES = 4000


def reads(path: str) -> bool:
    """Whether any content of a file or a directory can be read."""
    return bool(os.listdir(path) if os.path.isdir(path) else Path(path).read_bytes() or True)


def writes(path: str) -> bool:
    """Whether a file of this name can be made and written to."""
    Path(path).write_bytes(b"x")
    return Path(path).stat().st_size > 0


def connects(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> bool:
    """Whether an address can be reached."""
    with socket.socket(family, kind) as line:
        line.settimeout(2)
        line.connect(address)
        line.send(b"x")
    return True


def resolves() -> bool:
    """Whether a name service answers or could answer."""
    return bool(socket.getaddrinfo("example.org", 80))


def interfaces() -> bool:
    """Whether there is a network device besides a loopback of its own."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return any(not line.strip().startswith("lo:") or int(line.split()[1]) for line in lines)


def traces(pid: int) -> bool:
    return bool(LIBC.ptrace(PTRACE_ATTACH, pid, 0, 0) == 0)


def signals(pid: int) -> bool:
    os.kill(pid, 0)
    return True


def sees(secret: str) -> bool:
    """Whether a secret stands in the environment of any visible process."""
    if secret in str(os.environ):
        return True
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if secret.encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False


def has_capabilities() -> bool:
    """Whether this process has a capability, or can get one by executing a file or by becoming another user."""
    header, data = (0x20080522).to_bytes(4, "little") + bytes(4), ctypes.create_string_buffer(24)
    return LIBC.capget(header, data) != 0 or any(data.raw) or LIBC.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1


def becomes_root() -> bool:
    os.setuid(0)
    return True


def new_namespace() -> bool:
    return bool(LIBC.unshare(CLONE_NEWUSER) == 0)


def mounts() -> bool:
    return bool(LIBC.mount(b"x", b"/tmp", b"tmpfs", 0, None) == 0)


def descriptors(known: list[int]) -> bool:
    """Whether this process inherited open files other than the known ones."""
    extra = []
    for number in range(256):
        try:
            os.fstat(number)
        except OSError:
            continue
        extra.append(number)
    return not set(extra) <= {0, 1, 2, *known}


def grows(most: int) -> bool:
    """Whether a fork bomb starts more processes than the limit."""
    children, number = [], 0
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        while number < min(MOST_PROCESSES, 4 * most):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
            number += 1
    except OSError:
        pass
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return number > most


def fills(size: int) -> bool:
    """Whether a process can allocate and use `size` bytes."""
    held = bytearray(size)
    return len(held) == size


def leaves(marker: str) -> bool:
    """Whether a file that an earlier sandbox left under this name is still there. Then leave such a file."""
    found = False
    for directory in ("/tmp", "/dev/shm", "/var/tmp", "/dev/mqueue", str(Path.home())):
        path = Path(directory, marker)
        found = found or path.exists()
        try:
            path.write_text("import os")
        except OSError:
            continue
    return found


WISHES: dict[str, Callable[..., bool]] = {
    name: act
    for name, act in globals().items()
    if callable(act) and getattr(act, "__module__", None) == __name__ and name not in ("main",)
}


def granted(wishes: dict[str, list[Any]]) -> list[str]:
    """Return the names of the granted wishes. A name begins with the function to call, up to a colon."""
    found = []
    for wish, arguments in wishes.items():
        try:
            if WISHES[wish.partition(":")[0]](*arguments):
                found.append(wish)
        except (OSError, ValueError, MemoryError):
            continue
    return found


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    for wish in told.values():
        wish[:] = [tuple(word) if isinstance(word, list) else word for word in wish]
    sys.stdout.write(json.dumps(granted(told)))
