"""Whose a job is, and how much it matters. Told by the credential of a request, never by its body."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for a job."""

    tenant: str = "default"  # callers that share their turn in the queue
    priority: int = 0  # of their jobs; higher ones are claimed first, whoever waits


EVERYBODY = Caller()
