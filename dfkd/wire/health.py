"""Whether the service lives, and whether it can take jobs."""

from pydantic import Field

from dfkd.wire.model import Answer


class Health(Answer):
    """The answer of a process that runs."""

    status: str = Field(description="ok")


class Readiness(Answer):
    """What works and what does not."""

    status: str = Field(description="ok; degraded: jobs are accepted but start late; unavailable: none is accepted.")
    missing: list[str] = Field(
        description="Names of the checks that fail: database, storage, sandbox, broker, worker, devices."
    )
    checks: dict[str, str] = Field(description="Result of each check, by name.")
