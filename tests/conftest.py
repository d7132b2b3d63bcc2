"""Fixtures for every room: real databases, real Redis, and the ledger on each database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.servers import Postgres, Redis, running_postgres, running_redis

hypothesis_settings.register_profile("dfkd", deadline=None, print_blob=True)
hypothesis_settings.load_profile("dfkd")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One PostgreSQL for the whole run."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> str:
    """A PostgreSQL database without any table."""
    with postgres_server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'dfkd' AND pid <> pg_backend_pid()"
        )
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres_server.url()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The same test on both databases."""
    fixture = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(fixture))


@pytest.fixture
def ledger_settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a ledger of one's own, on either database; nothing waits before it is tried again."""
    return Settings(data_dir=tmp_path / "data", database_url=database_url, backoff_seconds=0.0)


@pytest.fixture
def store(ledger_settings: Settings) -> Iterator[Store]:
    """An empty ledger, on either database."""
    opened = open_store(ledger_settings)
    yield opened
    opened.close()


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    """A Redis of one's own."""
    with running_redis() as server:
        yield server


@pytest.fixture
def broker_url(redis_server: Redis) -> str:
    """The URL of a Redis of one's own."""
    return redis_server.url
