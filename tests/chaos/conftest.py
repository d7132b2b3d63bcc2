"""Deployments that a file of tests shares, and the run of a row."""

from collections.abc import Iterator

import pytest

from tests.chaos.deployment import Deployment, deployed
from tests.chaos.fault import Run
from tests.chaos.servers import PostgresServer, RedisServer, restartable_postgres, restartable_redis
from tests.sandboxes import clear_settings


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    """The machine's own settings are not part of a test."""
    clear_settings()


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """This run of the row."""
    row, number = request.param
    return Run(row, number, request.node.user_properties)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that can be killed and started again."""
    with restartable_redis() as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that can be killed and started again."""
    with restartable_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def pair() -> Iterator[Deployment]:
    """API and two workers on SQLite, without a broker."""
    with deployed(workers=2) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def single() -> Iterator[Deployment]:
    """API and one worker on SQLite, without a broker."""
    with deployed(workers=1) as deployment:
        yield deployment
