"""Rate limits: counted by tenant or address, shown in every answer, and off if the counter does not answer."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from os import kill
from pathlib import Path

import httpx
import pytest

from jobs.identity import Caller
from service.middleware.rate_limits import whose
from tests.servers import running_redis
from tests.service.harness import Service, problem_of, running_service
from tests.service.middleware.test_metrics import scraped, value

MANY = "1000/hour"
MISSING = "/jobs/00000000-0000-0000-0000-000000000000"
ITEM = re.compile(r'"(\w+)";r=(\d+);t=(\d+)')


@contextmanager
def service_with(directory: Path, **settings: str) -> Iterator[Service]:
    environment = {f"DFKD_{name.upper()}": text for name, text in settings.items()}
    with running_service(directory / "data", DFKD_SWEEP_SECONDS="3600", **environment) as running:
        yield running


@contextmanager
def unhurried(directory: Path, **settings: str) -> Iterator[Service]:
    """The same, on a machine on which Redis may need long."""
    environment = {f"DFKD_{name.upper()}": text for name, text in settings.items()}
    application = "tests.service.unhurried:create_app"
    with running_service(
        directory / "data", application=application, DFKD_SWEEP_SECONDS="3600", **environment
    ) as running:
        yield running


def left(response: httpx.Response) -> tuple[str, int, int]:
    """Policy, what is left of it, and for how many seconds."""
    found = ITEM.fullmatch(response.headers["ratelimit"])
    assert found is not None
    return found[1], int(found[2]), int(found[3])


def test_without_a_limit_nothing_is_told(http: httpx.Client) -> None:
    assert "ratelimit" not in http.get(MISSING).headers


def test_one_request_too_many_is_told_when_to_come_again(tmp_path: Path) -> None:
    with service_with(tmp_path, rate_limit="5/hour", rate_limit_posts="2/hour") as service:
        answers = [service.http.get(MISSING) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [404] * 5 + [429]
        assert [left(answer)[1] for answer in answers] == [4, 3, 2, 1, 0, 0]
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"requests";q=5;w=3600'}
        refused = answers[-1]
        problem = problem_of(refused)
        assert (problem["code"], problem["limit"]) == ("rate-limited", 5)
        assert 0 < int(refused.headers["retry-after"]) <= 3600
        posts = [service.http.post(f"{MISSING}/cancel") for _ in range(3)]  # counted apart
        assert [answer.status_code for answer in posts] == [404, 404, 429]
        assert posts[0].headers["ratelimit-policy"] == '"posts";q=2;w=3600'
        for path in ("/healthz", "/readyz", "/metrics"):
            assert service.http.get(path).status_code == 200
        samples = scraped(service.http)
        assert value(samples, "dfkd_rate_limited_total", policy="requests") == 1
        assert value(samples, "dfkd_rate_limited_total", policy="posts") == 1


def test_tenants_are_counted_apart_and_the_keys_of_one_together(tmp_path: Path) -> None:
    with service_with(tmp_path, rate_limit=MANY, auth="required") as service:
        keys = [service.store.api_keys.create(Caller(tenant))[1] for tenant in ("a", "a", "b")]
        told = [
            left(service.http.get(MISSING, headers={"Authorization": f"Bearer {key}"}))[1] for key in (*keys, keys[0])
        ]
        assert told == [999, 998, 999, 997]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "address 192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "address 2001:db8:1:2::/64"),
        ("a socket", "address a socket"),
    ],
)
def test_an_address_counts_where_there_is_no_key(address: str, expected: str) -> None:
    for caller in (None, Caller()):
        assert whose({"state": {"caller": caller}, "client": (address, 1)}) == expected
    assert whose({"state": {"caller": Caller("a", key_id="k")}, "client": (address, 1)}) == "tenant a"
    assert whose({"state": {"caller": None}}) == "address unknown"


def test_processes_count_together_in_a_redis_and_alone_while_it_hangs(tmp_path: Path) -> None:
    with running_redis() as redis:
        settings = {"rate_limit": MANY, "rate_limit_url": redis.url}
        with unhurried(tmp_path / "one", **settings) as one, unhurried(tmp_path / "two", **settings) as two:
            told = [left(service.http.get(MISSING))[1] for service in (one, two, one)]
            assert told == [999, 998, 997]
            kill(redis.pid, signal.SIGSTOP)
            assert left(one.http.get(MISSING))[1] == 999  # by its own count
            assert value(scraped(one.http), "dfkd_rate_limit_failures_total") == 1
            assert left(one.http.get(MISSING))[1] == 998  # without asking again
            assert value(scraped(one.http), "dfkd_rate_limit_failures_total") == 1
            kill(redis.pid, signal.SIGCONT)
            assert left(two.http.get(MISSING))[1] < 998  # with the others again


def test_a_redis_that_is_not_there_keeps_nobody_out(tmp_path: Path) -> None:
    url = f"redis+socket://{tmp_path}/none.sock?virtual_host=0"
    with service_with(tmp_path, rate_limit="2/hour", rate_limit_url=url) as service:
        assert [service.http.get(MISSING).status_code for _ in range(3)] == [404, 404, 429]
