"""Files that a runner says it wrote. A runner may be anybody's program: it may name no other file of this host."""

import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO


class NotOwnFile(OSError):
    """What was named is not a plain file below the workspace."""


def open_produced(workspace: Path, path: Path) -> BinaryIO:
    """The file that a runner names by its absolute path, to read. FileNotFoundError; NotOwnFile.

    Every step down is taken from the directory that is open already, and none follows a link: the runner still runs,
    and what is checked by name is another file when it is opened by name.
    """
    try:
        *directories, name = path.relative_to(workspace).parts
    except ValueError:
        raise NotOwnFile(f"{path} is not in the workspace") from None
    if ".." in (*directories, name):
        raise NotOwnFile(f"{path} is not in the workspace")
    with ExitStack() as opened:
        try:
            at = _opened(workspace, None, os.O_DIRECTORY | os.O_NOFOLLOW, opened)
            for directory in directories:
                at = _opened(directory, at, os.O_DIRECTORY | os.O_NOFOLLOW, opened)
            found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        except FileNotFoundError:
            raise
        except OSError as error:  # a link, a file where a directory should be, a socket
            raise NotOwnFile(f"{path} is not a file of the workspace: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise NotOwnFile(f"{path} is not a plain file")
    return os.fdopen(found, "rb")


def _opened(name: Path | str, at: int | None, flags: int, stack: ExitStack) -> int:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=at)
    stack.callback(os.close, descriptor)
    return descriptor
