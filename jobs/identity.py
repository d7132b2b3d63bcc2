"""The caller of a request: its tenant, priority and scopes. They come from its API key, never from a request's body."""

import re
from dataclasses import dataclass
from enum import StrEnum

DEFAULT_TENANT = "default"
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Scope(StrEnum):
    """What a key allows. No scope implies another."""

    JOBS_READ = "jobs:read"  # see jobs, teachers, files and the menu
    JOBS_WRITE = "jobs:write"  # upload, submit, cancel, pause, delete
    METRICS = "metrics"  # figures of the whole deployment


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request, as its API key describes it."""

    tenant: str = DEFAULT_TENANT  # owns the jobs, teachers and stored answers; its callers share one turn in the queue
    priority: int = 0  # priority of the caller's jobs; higher ones are claimed first, before those of other tenants
    scopes: frozenset[Scope] = frozenset(Scope)
    key_id: str | None = None  # the public part of the key; None if the service asks for no key
    request_id: str | None = None  # id of the current request


ANONYMOUS = Caller()
"""The caller of every request if the service asks for no key."""
