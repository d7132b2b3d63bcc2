"""What the settings of an environment refuse."""

import pytest

from dfkd_core.spec.overrides import BadOption
from jobs.settings import settings_from_environment


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://host/name", "postgres://host/name", "postgresql+asyncpg://host/name"]
)
def test_a_database_that_is_not_served_is_refused_by_name(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_DATABASE_URL", url)
    with pytest.raises(BadOption, match=r"DFKD_DATABASE_URL: .*postgresql"):
        settings_from_environment()


@pytest.mark.parametrize(
    "url", ["sqlite:////data/ledger.sqlite3", "postgresql://host/name", "postgresql+psycopg://host/name"]
)
def test_both_databases_are_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_DATABASE_URL", url)
    assert settings_from_environment().resolved_database_url == url
