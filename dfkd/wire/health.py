"""Whether the service lives, and whether it can take jobs."""

from pydantic import Field

from dfkd.wire.model import Answer


class Health(Answer):
    """The process lives."""

    status: str = Field(description="ok")


class Readiness(Answer):
    """What works and what does not."""

    status: str = Field(description="ok; degraded: jobs are kept but start late; unavailable: none can be kept.")
    missing: list[str] = Field(
        description="Names of the checks that fail: database, storage, sandbox, broker, worker, devices."
    )
    checks: dict[str, str] = Field(description="What each check found.")
