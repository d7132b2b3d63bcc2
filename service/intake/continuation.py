"""Builds the spec of a job that continues another one.

The checkpoint was computed under the old spec, so of everything that affects the computation only the budget may
change.
"""

from collections.abc import Iterator
from typing import Any

from dfkd_core.spec.config import Budget
from dfkd_core.spec.json_pointer import child_pointer
from jobs.models import Job, JobSpec
from service.intake.spec_parsing import validate
from service.intake.strict_json import read_json_object
from service.problems.errors import MAX_ERRORS, FieldError, ValidationFailed

Json = dict[str, Any]  # Any: JSON

BUDGET = "/distillation/budget"
_FREE = {BUDGET, "/name", "/labels", "/device", "/export/samples"}


def readable_spec(job: Job) -> JobSpec:
    """Return the spec of a job that is to be run again.

    Raises:
        ValidationFailed: another version stored the spec, and this version cannot read it.
    """
    if isinstance(job.spec, JobSpec):
        return job.spec
    raise ValidationFailed(
        "The spec of this job was stored by another version, and this one cannot read it.",
        hint="Submit the spec to POST /jobs: the answer names each field that has to change.",
    )


def continued_spec(job: Job, text: bytes, *, max_bytes: int) -> JobSpec:
    """Return the spec of `job` with what `text` changes in it: a larger budget, name, labels, device, samples.

    Raises:
        ValidationFailed: the spec is not valid, or something else changes.
    """
    old = readable_spec(job)
    before = old.model_dump(mode="json")
    spec = validate(JobSpec, _merged(before, read_json_object(text, max_bytes=max_bytes), pointer=""))
    changed = list(_differences(before, spec.model_dump(mode="json"), pointer=""))[:MAX_ERRORS]
    if changed:
        raise ValidationFailed(
            "A job that is continued computes what it computed before, only longer.",
            errors=[FieldError(pointer, "cannot change when a job is continued") for pointer in changed],
            hint="Only distillation.budget, name, labels, device and export.samples can change; POST /jobs takes any "
            "other spec.",
        )
    _check_budget(old.distillation.budget, spec.distillation.budget, steps_done=job.progress.step)
    return spec


def _check_budget(old: Budget, new: Budget, *, steps_done: int) -> None:
    """Check that steps are left to do and that the new budget is not smaller than the old one."""
    if new.steps >= old.steps and new.steps > steps_done:
        return
    least = max(old.steps, steps_done + 1)
    raise ValidationFailed(
        "The budget leaves nothing to do.",
        errors=[FieldError(f"{BUDGET}/steps", f"must be {least} at least: {steps_done} are done")],
        hint="distillation.budget.steps counts all student updates, those of the job before included.",
    )


def _merged(before: Json, changes: Json, *, pointer: str) -> Json:
    """`before` with `changes` merged into it object by object; labels are replaced as a whole."""
    merged = dict(before)
    for key, value in changes.items():
        below, known = child_pointer(pointer, key), before.get(key)
        if isinstance(value, dict) and isinstance(known, dict) and below != "/labels":
            merged[key] = _merged(known, value, pointer=below)
        else:
            merged[key] = value
    return merged


def _differences(before: Any, after: Any, *, pointer: str) -> Iterator[str]:
    """JSON pointers of all differences in fields that must not change."""
    if pointer in _FREE:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _differences(before.get(key), after.get(key), pointer=child_pointer(pointer, key))
    elif before != after:
        yield pointer
