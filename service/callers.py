"""Who asks. There are no keys yet, so everybody is the same; a key will tell the tenant and the priority here."""

from fastapi import Request

from jobs.callers import EVERYBODY, Caller


def caller_of(_request: Request) -> Caller:
    """Whose request this is. Nothing in its body, its query or its headers has a say in that."""
    return EVERYBODY
