"""A service that asks for keys, and keys of two tenants for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from jobs.identity import Caller, Scope
from tests.patience import PATIENCE
from tests.service.harness import Service, running_service

READ, WRITE = frozenset({Scope.JOBS_READ}), frozenset({Scope.JOBS_WRITE})
VARYING = {"date", "x-request-id"}


@dataclass(frozen=True, slots=True)
class Guarded:
    """A running service with DFKD_AUTH=required, and its keys by tenant and what they allow."""

    service: Service
    keys: dict[tuple[str, str], str]

    def http(self, tenant: str, allows: str = "both") -> httpx.Client:
        """A client with one of the keys; close it."""
        headers = {"Authorization": f"Bearer {self.keys[tenant, allows]}"}
        return httpx.Client(base_url=self.service.url, timeout=PATIENCE, headers=headers)


@contextmanager
def guarded_service(data_dir: Path, **environment: str) -> Iterator[Guarded]:
    """Tenants acme and umbrella, each with keys that may read, write, and both."""
    with running_service(data_dir, DFKD_AUTH="required", **environment) as service:
        keys = {
            (tenant, allows): service.store.api_keys.create(Caller(tenant, scopes=scopes))[1]
            for tenant in ("acme", "umbrella")
            for allows, scopes in {"read": READ, "write": WRITE, "both": READ | WRITE}.items()
        }
        yield Guarded(service, keys)


def told(response: httpx.Response) -> tuple[int, dict[str, str], dict[str, Any]]:
    """All that differs between two refusals, if anything does."""
    headers = {name: value for name, value in response.headers.items() if name not in VARYING}
    body = {name: value for name, value in response.json().items() if name not in {"instance", "request_id"}}
    return response.status_code, headers, body
