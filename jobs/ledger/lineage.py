"""Jobs that come from other jobs: the same once more, or further from the last checkpoint.

A continuing job begins with the checkpoint of the job before it, under the budget with which that was written, and with
its thread count: both are part of what makes a checkpoint fit.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from jobs.db.mapping import spec_from_text
from jobs.errors import CheckpointExpired, InvalidTransition
from jobs.models import TERMINAL, JobSpec, JobState


@dataclass(frozen=True, slots=True)
class Origin:
    """The job from which another one comes."""

    job_id: str
    continues: bool  # from its last checkpoint; else from the beginning


def checkpoint_of(row: Row[Any]) -> str:
    """The last checkpoint of a finished job; InvalidTransition, CheckpointExpired."""
    _check_finished(row)
    if row.checkpoint_sha256 is None:
        raise CheckpointExpired
    return str(row.checkpoint_sha256)


def inherited(row: Row[Any], origin: Origin) -> dict[str, Any]:
    """What a new job has from the locked row of the one before; InvalidTransition, CheckpointExpired."""
    if not origin.continues:
        _check_finished(row)
        return {"retried_from": row.id}
    checkpoint_of(row)
    spec = spec_from_text(row.spec)
    assert isinstance(spec, JobSpec)  # the new one was made from it
    kept = ("checkpoint_sha256", "previous_checkpoint_sha256", "checkpoint_step", "threads")
    return {name: row._mapping[name] for name in kept} | {
        "continued_from": row.id,
        "continued_budget": spec.distillation.budget.model_dump_json(),
    }


def _check_finished(row: Row[Any]) -> None:
    if row.state not in TERMINAL:
        raise InvalidTransition(JobState(row.state), allowed=TERMINAL)
