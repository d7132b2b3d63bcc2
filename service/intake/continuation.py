"""Builds the spec of a job that continues another one.

The checkpoint was computed under the old spec, so of everything that affects the computation only the budget may
change.
"""

from collections.abc import Iterator
from typing import Any

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

    Another effort without steps leaves the steps open: `resolve` finds them, and `check_budget` judges them.

    Raises:
        ValidationFailed: the spec is not valid, or something else changes.
    """
    old = readable_spec(job)
    before = old.model_dump(mode="json")
    changes = read_json_object(text, max_bytes=max_bytes)
    document = _merged(before, changes, pointer="")
    spec = validate(JobSpec, document)
    if spec.distillation.budget.effort != old.distillation.budget.effort and not _gives_steps(changes):
        del document["distillation"]["budget"]["steps"]
        spec = validate(JobSpec, document)
    changed = list(_differences(before, spec.model_dump(mode="json"), pointer=""))[:MAX_ERRORS]
    if changed:
        raise ValidationFailed(
            "A job that is continued computes what it computed before, only longer.",
            errors=[FieldError(pointer, "cannot change when a job is continued") for pointer in changed],
            hint="The budget, name, labels, device and export.samples can change; POST /jobs takes any other spec.",
        )
    return spec


def leaves_steps_open(spec: JobSpec) -> bool:
    """Return whether the steps of a continued job have to be found from its effort."""
    return "steps" not in spec.distillation.budget.model_fields_set


def check_budget(job: Job, spec: JobSpec, *, by_effort: bool) -> None:
    """Check that steps are left to do and that the new budget is not smaller than that of `job`.

    `by_effort`: the steps were found from the effort that the caller named.

    Raises:
        ValidationFailed: nothing is left to do.
    """
    old, new, done = readable_spec(job).distillation.budget, spec.distillation.budget, job.progress.step
    if new.steps >= old.steps and new.steps > done:
        return
    least = max(old.steps, done + 1)
    field, wrong = "steps", f"must be {least} at least: {done} are done"
    if by_effort:
        field = "effort"
        wrong = f"{new.effort} comes to {new.steps} updates with this job's settings; {done} of {old.steps} are done"
    raise ValidationFailed(
        "The budget leaves nothing to do.",
        errors=[FieldError(f"{BUDGET}/{field}", wrong)],
        hint=f"Give distillation.budget.steps, {least} or more: it counts all student updates, those of the job before "
        "included.",
    )


def _gives_steps(changes: Json) -> bool:
    """Return whether the caller's changes, which were validated, name the steps."""
    return "steps" in changes["distillation"]["budget"]


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
