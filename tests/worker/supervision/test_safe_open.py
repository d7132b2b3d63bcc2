"""Only a plain file below the workspace is opened, whatever path a runner names."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.supervision.safe_open import UnsafeFile, open_in_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    found = tmp_path / "workspace"
    (found / "out").mkdir(parents=True)
    (found / "out" / "student.onnx").write_bytes(b"ours")
    (tmp_path / "secret").write_bytes(b"not ours")
    return found


def test_a_file_of_the_workspace_is_opened(workspace: Path) -> None:
    with open_in_workspace(workspace, workspace / "out" / "student.onnx") as file:
        assert file.read() == b"ours"


def link_to_a_file(workspace: Path) -> Path:
    (workspace / "link").symlink_to(workspace.parent / "secret")
    return workspace / "link"


def link_to_an_own_file(workspace: Path) -> Path:
    (workspace / "link").symlink_to(workspace / "out" / "student.onnx")
    return workspace / "link"


def link_on_the_way(workspace: Path) -> Path:
    (workspace / "up").symlink_to(workspace.parent)
    return workspace / "up" / "secret"


def pipe(workspace: Path) -> Path:
    os.mkfifo(workspace / "pipe")
    return workspace / "pipe"


def bound_socket(workspace: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(workspace / "s"))
    return workspace / "s"


@pytest.mark.parametrize(
    "named",
    [
        link_to_a_file,
        link_to_an_own_file,
        link_on_the_way,
        pipe,
        bound_socket,
        lambda workspace: workspace / ".." / "secret",
        lambda workspace: workspace / "out" / ".." / ".." / "secret",
        lambda workspace: workspace.parent / "secret",
        lambda workspace: workspace / "out",
        lambda workspace: workspace / "out" / "student.onnx" / "more",
        lambda workspace: workspace,
        lambda workspace: Path("None"),
    ],
)
def test_anything_else_is_refused(workspace: Path, named: Callable[[Path], Path]) -> None:
    with pytest.raises(UnsafeFile):
        open_in_workspace(workspace, named(workspace))


def test_a_workspace_that_became_a_link_is_refused(workspace: Path) -> None:
    moved = workspace.rename(workspace.with_name("moved"))
    workspace.symlink_to(moved)
    with pytest.raises(UnsafeFile):
        open_in_workspace(workspace, workspace / "out" / "student.onnx")


def test_what_is_not_there_is_told_apart(workspace: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_in_workspace(workspace, workspace / "out" / "report.json")


def test_nothing_stays_open(workspace: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for path in (workspace / "out", workspace / "out" / "student.onnx"):
        try:
            open_in_workspace(workspace, path).close()
        except UnsafeFile:
            continue
    assert os.listdir("/proc/self/fd") == before
