"""The limits of a tenant as plain values, without SQL."""

from dataclasses import dataclass
from enum import StrEnum


class Quota(StrEnum):
    """The quantities that a quota limits."""

    QUEUED_JOBS = "queued_jobs"
    RUNNING_JOBS = "running_jobs"
    STORED_BYTES = "stored_bytes"
    DEVICE_SECONDS = "device_seconds_per_day"


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits of a tenant; 0 means no limit."""

    queued_jobs: int = 0
    running_jobs: int = 0
    stored_bytes: int = 0
    device_seconds_per_day: int = 0


UNLIMITED = Quotas()
