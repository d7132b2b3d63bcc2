"""Which Redis `dfkd up` takes."""

import sys
from pathlib import Path

import pytest

from service.embedded.up import redis_binary


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_server_from_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    server = tmp_path / name
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_binary() == str(server)


def test_else_the_wheel_brings_one_where_there_is_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = redis_binary()
    if sys.version_info < (3, 13) and sys.platform == "linux":
        assert found is not None
        assert Path(found).name == "redis-server"
    else:
        assert found is None
