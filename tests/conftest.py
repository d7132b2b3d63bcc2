"""Fixtures for every room: real databases, real Redis, and the ledger on each database."""

import gc
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.exporter_table import exporter_table_kept
from tests.sandboxes import choose_sandbox
from tests.servers import (
    BUCKET,
    OWNER,
    ObjectStore,
    Postgres,
    Redis,
    running_object_store,
    running_postgres,
    running_redis,
)

choose_sandbox()
hypothesis_settings.register_profile("dfkd", deadline=None, print_blob=True)
hypothesis_settings.load_profile("dfkd")


def pytest_collection_finish() -> None:
    """Let the garbage collector leave out what is there before the first test: modules and tests stay to the end."""
    gc.collect()
    gc.freeze()


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
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND pid <> pg_backend_pid()"
        )
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute(f"CREATE SCHEMA public AUTHORIZATION {OWNER}")
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


@pytest.fixture(scope="session")
def blank_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite ledger with its tables and without a row, to be copied."""
    path = tmp_path_factory.mktemp("blank") / "ledger.sqlite3"
    open_store(Settings(database_url=f"sqlite:///{path}")).close()
    return path


@pytest.fixture(scope="session")
def blank_postgres(postgres_server: Postgres) -> str:
    """The name of a database with the ledger's tables and without a row, to be copied."""
    open_store(Settings(database_url=postgres_server.make_database("blank"))).close()
    return "blank"


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a ledger of one's own, on either database; nothing waits before it is tried again."""
    if request.param == "sqlite":
        path = shutil.copy(request.getfixturevalue("blank_sqlite"), tmp_path)
        url = f"sqlite:///{path}"
    else:
        server, blank = (request.getfixturevalue(name) for name in ("postgres_server", "blank_postgres"))
        url = server.make_database("ledger", like=blank)
    return Settings(data_dir=tmp_path / "data", database_url=url, backoff_seconds=0.0)


@pytest.fixture
def store(ledger_settings: Settings) -> Iterator[Store]:
    """An empty ledger, on either database."""
    opened = open_store(ledger_settings)
    yield opened
    opened.close()


@pytest.fixture(scope="session", autouse=True)
def _keys_of_the_object_store() -> None:
    """Where AWS tools look for keys there are some that mean nothing, and none of this machine's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {"AWS_ACCESS_KEY_ID": "dfkd", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_EC2_METADATA_DISABLED": "true"}
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """One object store for the whole run."""
    with running_object_store() as server:
        yield server


@pytest.fixture
def bucket(object_store: ObjectStore) -> dict[str, str]:
    """Settings of an empty place in it."""
    return {
        "artifacts_url": f"s3://{BUCKET}/{uuid.uuid4().hex}",
        "artifacts_endpoint_url": object_store.endpoint_url,
    }


@pytest.fixture(params=["directory", "bucket"])
def artifact_settings(request: pytest.FixtureRequest) -> dict[str, str]:
    """The same test on both places for files: what Settings need beside the data directory."""
    settings: dict[str, str] = {} if request.param == "directory" else request.getfixturevalue("bucket")
    return settings


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    """A Redis of one's own."""
    with running_redis() as server:
        yield server


@pytest.fixture
def broker_url(redis_server: Redis) -> str:
    """The URL of a Redis of one's own."""
    return redis_server.url


@pytest.fixture(scope="session")
def exporter_table() -> Iterator[None]:
    """For tests that export in this process: PyTorch's table of operators is built once."""
    with exporter_table_kept():
        yield
