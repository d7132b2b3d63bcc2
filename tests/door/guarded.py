"""The front door of a service that asks for keys, with callers who have bad keys, no rights left or no room left."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from jobs.identity import Caller
from jobs.quota_limits import Quota
from tests.door.door import OCTETS, Door
from tests.door.transport import IDLE_SECONDS, LIMIT
from tests.jobs.clockwork import use_up
from tests.patience import PATIENCE
from tests.service.guarded import Guarded, guarded_service
from tests.service.harness import eventually

PER_HOUR = 150  # requests of a tenant; acme sends two for every row
TENANTS = ("umbrella", "hasty", "crowded", "full", "spent")
"""Beside acme: another one, one that asks too often, and three that are at their limits of jobs, bytes and seconds."""

WRONG_KEYS = (
    "wrong", "another key's secret", "truncated", "unknown", "expired", "revoked",
    "the secret alone", "a character more", "in capitals", "twice",
)  # fmt: skip
"""What may be wrong with a key. All get the same answer."""


class GuardedDoor(Door):
    """Requests are acme's; what goes through `raw` or `nobody` bears no key."""

    def __init__(self, guarded: Guarded) -> None:
        self.guarded = guarded
        self.nobody = guarded.service.http
        self.wrong_keys = wrong_keys(guarded)
        super().__init__(replace(guarded.service, http=guarded.http("acme")))
        keys = guarded.service.store.api_keys
        self.keys = {tenant: keys.create(Caller(tenant))[1] for tenant in TENANTS}
        self._clients = {tenant: self._client(key) for tenant, key in self.keys.items()}
        self._bring_to_limits()

    @property
    def good_key(self) -> str:
        """Acme's."""
        return self.guarded.keys["acme", "both"]

    def _client(self, key: str) -> httpx.Client:
        return httpx.Client(base_url=self.service.url, timeout=PATIENCE, headers={"Authorization": f"Bearer {key}"})

    def _bring_to_limits(self) -> None:
        """Everybody has the teacher; then nothing more fits."""
        for client in self._clients.values():
            assert eventually(lambda client=client: client.get("/quota").status_code == 200)  # type: ignore[misc]
            answer = client.post("/teachers", content=self.known, headers=OCTETS)
            assert answer.status_code == 201, answer.text
        assert self.of("crowded").spec().status == 202
        use_up(self.service.store, "spent", 86400.0)
        limits = {"crowded": {Quota.QUEUED_JOBS: 1}, "full": {Quota.STORED_BYTES: len(self.known)}}
        for tenant, given in {**limits, "spent": {Quota.DEVICE_SECONDS: 86400}}.items():
            self.service.store.tenants.limit(tenant, given)

    def of(self, tenant: str) -> Door:
        """The same door and Idempotency-Key for another tenant."""
        other = copy.copy(self)
        other.service = replace(self.service, http=self._clients[tenant])
        return other

    def close(self) -> None:
        """Close the clients."""
        for client in (self.service.http, *self._clients.values()):
            client.close()


def wrong_keys(guarded: Guarded) -> dict[str, str]:
    """A key for each of WRONG_KEYS. The first is the hardest: all but its last digits are right."""
    keys = guarded.service.store.api_keys
    good, other = guarded.keys["acme", "both"], guarded.keys["umbrella", "both"]
    public, secret = good.rsplit("_", 1)
    last = "0" if secret[-1] != "0" else "1"
    _, expired = keys.create(Caller("acme"), valid_seconds=0.0)
    made, revoked = keys.create(Caller("acme"))
    keys.revoke(made.id)
    unknown = f"dfkd_{'0' * 16}_{secret}"
    wrong = (
        f"{good[:-1]}{last}", f"{public}_{other.rsplit('_', 1)[1]}", good[:-1], unknown, expired, revoked,
        secret, f"{good}0", good.upper(), f"{good} {good}",
    )  # fmt: skip
    return dict(zip(WRONG_KEYS, wrong, strict=True))


@contextmanager
def guarded_door(data_dir: Path, **environment: str) -> Iterator[GuardedDoor]:
    """A service of its own, with SQLite and a directory of files; nobody works on its jobs."""
    limits = {"DFKD_MAX_UPLOAD_BYTES": str(LIMIT), "DFKD_UPLOAD_IDLE_SECONDS": str(IDLE_SECONDS)}
    with guarded_service(data_dir, **limits, DFKD_SWEEP_SECONDS="3600", **environment) as guarded:
        door = GuardedDoor(guarded)
        try:
            yield door
        finally:
            door.close()
