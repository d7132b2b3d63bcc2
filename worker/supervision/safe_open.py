"""Open files that a runner names. A runner may execute anything, so it can name no other file of this host."""

import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO


class UnsafeFile(OSError):
    """The path does not name a plain file below the workspace."""


def open_in_workspace(workspace: Path, path: Path) -> BinaryIO:
    """Open the file at an absolute path below `workspace` for reading.

    The runner still runs, so a file that was checked by its name can be another one when it is opened by that name.
    Therefore each step down is opened relative to the directory that is open already, and none follows a link.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafeFile: the path leaves the workspace, passes a link, or does not name a plain file.
    """
    try:
        *directories, name = path.relative_to(workspace).parts
    except ValueError:
        raise UnsafeFile(f"{path} is not in the workspace") from None
    if ".." in (*directories, name):
        raise UnsafeFile(f"{path} is not in the workspace")
    with ExitStack() as stack:
        try:
            parent = _open_directory(workspace, None, stack)
            for directory in directories:
                parent = _open_directory(directory, parent, stack)
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            raise
        except OSError as error:  # a link, a file where a directory should be, a socket
            raise UnsafeFile(f"{path} is not a file of the workspace: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafeFile(f"{path} is not a plain file")
    return os.fdopen(descriptor, "rb")


def _open_directory(name: Path | str, parent: int | None, stack: ExitStack) -> int:
    """Open a directory relative to the open directory `parent`; the stack closes it."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    stack.callback(os.close, descriptor)
    return descriptor
