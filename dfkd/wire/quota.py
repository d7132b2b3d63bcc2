"""The limits of a tenant, and how much of them is used."""

from pydantic import Field

from dfkd.wire.model import Answer


class UseView(Answer):
    """The limit of one quota, and its use."""

    limit: int | None = Field(description="The limit; null if there is none.")
    used: int = Field(description="How much of it is used.")


class QuotaView(Answer):
    """The limits of a tenant, and how much of them is used."""

    tenant: str = Field(description="The tenant of the API key that was sent.")
    queued_jobs: UseView = Field(description="Jobs that are queued or paused.")
    running_jobs: UseView = Field(description="Running jobs; over the limit, others wait in the queue.")
    stored_bytes: UseView = Field(
        description="Size of its teachers, its jobs' files and its finished jobs' checkpoints; equal files count once."
    )
    device_seconds_per_day: UseView = Field(description="Seconds that its jobs have run since midnight UTC.")
