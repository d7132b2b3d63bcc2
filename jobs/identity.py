"""Whose a job is, how much it matters, what its caller may do. Told by the credential, never by a request's body."""

import re
from dataclasses import dataclass
from enum import StrEnum

DEFAULT_TENANT = "default"
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Scope(StrEnum):
    """What a key allows; none of them implies another."""

    JOBS_READ = "jobs:read"  # see jobs, teachers, files and the menu
    JOBS_WRITE = "jobs:write"  # upload, submit, cancel, pause, delete
    METRICS = "metrics"  # figures of the whole deployment


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    tenant: str = DEFAULT_TENANT  # whose jobs, teachers and answers these are; callers of one share their turn, too
    priority: int = 0  # of their jobs; higher ones are claimed first, whoever waits
    scopes: frozenset[Scope] = frozenset(Scope)
    key_id: str | None = None  # the public part of the key; None where nobody is asked for one
    request_id: str | None = None  # of what is asked just now


ANONYMOUS = Caller()
"""Whoever asks where nobody is asked for a key."""
