"""Jobs that are made from other jobs: a retry runs the same spec again, a continuation starts from the last checkpoint.

A continuation inherits the checkpoint and the thread count of the job before it, and records the budget under which the
checkpoint was written. Both decide whether the checkpoint can be loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import Row

from jobs.db.mapping import spec_from_text
from jobs.errors import CheckpointExpired, InvalidTransition
from jobs.models import TERMINAL, JobSpec, JobState

NO_PREVIOUS_CHECKPOINT: Mapping[str, None] = MappingProxyType(
    dict.fromkeys(("previous_checkpoint_sha256", "previous_checkpoint_bytes"))
)
"""The columns of a job that keeps only its last checkpoint."""

NO_CHECKPOINTS: Mapping[str, None] = MappingProxyType(
    {**NO_PREVIOUS_CHECKPOINT, **dict.fromkeys(("checkpoint_sha256", "checkpoint_bytes"))}
)
"""The columns of a job without checkpoints."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The job from which a new job is made."""

    job_id: str
    continues: bool  # True: from its last checkpoint; False: from the beginning


def checkpoint_of(row: Row[Any]) -> str:
    """Return the digest of the last checkpoint of a finished job.

    Raises:
        InvalidTransition: The job has not ended.
        CheckpointExpired: The job has no checkpoint.
    """
    _check_finished(row)
    if row.checkpoint_sha256 is None:
        raise CheckpointExpired
    return str(row.checkpoint_sha256)


def inherited(row: Row[Any], origin: Origin) -> dict[str, Any]:
    """Return the columns that a new job inherits from the locked row of the job before.

    Raises:
        InvalidTransition: The job before has not ended.
        CheckpointExpired: The new job continues, and the job before has no checkpoint.
    """
    if not origin.continues:
        _check_finished(row)
        return {"retried_from": row.id}
    checkpoint_of(row)
    spec = spec_from_text(row.spec)
    assert isinstance(spec, JobSpec)  # the service has made the new spec from it
    kept = (*NO_CHECKPOINTS, "checkpoint_step", "threads")
    return {name: row._mapping[name] for name in kept} | {
        "continued_from": row.id,
        "continued_budget": spec.distillation.budget.model_dump_json(),
    }


def _check_finished(row: Row[Any]) -> None:
    if row.state not in TERMINAL:
        raise InvalidTransition(JobState(row.state), allowed=TERMINAL)
