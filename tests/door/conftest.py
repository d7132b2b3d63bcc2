"""One server for the whole table: a real process, SQLite, a directory of files, nobody who works on its jobs."""

import os
from collections.abc import Iterator

import pytest

from tests.door.door import Door
from tests.door.transport import IDLE_SECONDS, LIMIT
from tests.service.harness import running_service


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The front door of a service."""
    limits = {"DFKD_MAX_UPLOAD_BYTES": str(LIMIT), "DFKD_UPLOAD_IDLE_SECONDS": str(IDLE_SECONDS)}
    without = [name for name in os.environ if name.startswith("DFKD_")]
    assert not without, f"settings from outside: {without}"
    with running_service(tmp_path_factory.mktemp("door") / "data", **limits, DFKD_SWEEP_SECONDS="3600") as service:
        yield Door(service)
