"""The limits of a tenant, and how much of them is used."""

from pydantic import Field

from dfkd.wire.model import Answer


class UseView(Answer):
    """One quota."""

    limit: int | None = Field(description="How much there may be; null: any number.")
    used: int = Field(description="How much there is.")


class QuotaView(Answer):
    """What a tenant may have, and what it has."""

    tenant: str = Field(description="Whose it is: that of the key with which was asked.")
    queued_jobs: UseView = Field(description="Jobs that are queued or paused.")
    running_jobs: UseView = Field(description="Jobs that run; others wait in the queue meanwhile.")
    stored_bytes: UseView = Field(description="Teachers that it sent and files of its jobs, equal ones once.")
    device_seconds_per_day: UseView = Field(description="For how long its jobs have run since midnight UTC.")
