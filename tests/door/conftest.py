"""Two servers for the table, one of which asks for keys: real processes, SQLite, files, and no worker."""

import os
from collections.abc import Iterator

import pytest

from tests.door.door import Door
from tests.door.guarded import PER_HOUR, GuardedDoor, guarded_door
from tests.door.transport import IDLE_SECONDS, LIMIT
from tests.sandboxes import VARIABLE
from tests.service.harness import running_service


@pytest.fixture(scope="session", name="no_settings")
def _no_settings_from_outside() -> None:
    """The machine's own settings are not part of a test."""
    without = [name for name in os.environ if name.startswith("DFKD_") and name != VARIABLE]
    assert not without, f"settings from outside: {without}"


@pytest.fixture(scope="session")
def door(no_settings: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The front door of a service."""
    limits = {"DFKD_MAX_UPLOAD_BYTES": str(LIMIT), "DFKD_UPLOAD_IDLE_SECONDS": str(IDLE_SECONDS)}
    with running_service(tmp_path_factory.mktemp("door") / "data", **limits, DFKD_SWEEP_SECONDS="3600") as service:
        yield Door(service)


@pytest.fixture(scope="session", name="guarded_door")
def _guarded_door(no_settings: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedDoor]:
    """The front door of a service that has keys."""
    with guarded_door(tmp_path_factory.mktemp("guarded") / "data", DFKD_RATE_LIMIT=f"{PER_HOUR}/hour") as door:
        yield door
