"""What a job will take on each known class of workers, and whether any of them can do it."""

from collections.abc import Sequence
from dataclasses import dataclass

from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.inspection.job_facts import job_facts
from dfkd_core.inspection.limits import check_cost
from dfkd_core.inspection.resolve import resolve
from dfkd_core.notice import Notice
from dfkd_core.planning.forecast import Continuation, JobFacts, forecast, forecast_rest
from dfkd_core.planning.memory import memory_need
from jobs.devices import served_by
from jobs.models import ClassEstimate, JobSpec, WorkerClass
from jobs.quota_limits import Quotas
from jobs.settings import Settings
from service.intake.inspection_cache import cost_limits
from service.problems.errors import FieldError, PlanInfeasible

TOLERANCE = 1.5
"""An estimate may be wrong by this factor. A time limit refuses a job only if the job misses it by more."""

MAX_SECONDS = "/distillation/budget/max_seconds"
LARGEST_BATCH = "/distillation/training/batch_size"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a job takes on one class of workers."""

    worker_class: WorkerClass
    estimate: ClassEstimate
    first_student_seconds: float  # of the shortest job that delivers a student

    @property
    def is_held(self) -> bool:
        """Whether the class has the memory."""
        limit = self.worker_class.memory_bytes
        return limit is None or self.estimate.memory_bytes <= limit


@dataclass(frozen=True, slots=True)
class Assessment:
    """A spec that was checked against its teacher, and what the job will take."""

    spec: JobSpec  # resolved
    student: NetworkDescription | None  # None: the narrowed teacher
    warnings: list[Notice]
    outlooks: list[Outlook] | None  # None: nothing is known of workers or teacher


def assess(
    spec: JobSpec,
    inspection: Inspection,
    settings: Settings,
    *,
    classes: Sequence[WorkerClass],
    quotas: Quotas,
    before: Continuation | None = None,
) -> Assessment:
    """Resolve the spec for its teacher, and estimate the job, or what is left where it continues another one.

    Raises:
        DfkdError: teacher and spec do not fit together, or they cost more than this installation allows.
    """
    limits = cost_limits(settings)
    check_cost(inspection, limits)
    resolved, student, warnings = resolve(spec, inspection, activation_bytes=settings.activation_bytes)
    check_cost(inspection, limits, spec=resolved)
    found = outlooks(resolved, job_facts(resolved, inspection, student), classes, before=before)
    return Assessment(resolved, student, [*warnings, *over_a_day(found, quotas)], found)


def outlooks(
    spec: JobSpec, facts: JobFacts | None, classes: Sequence[WorkerClass], *, before: Continuation | None = None
) -> list[Outlook] | None:
    """Return what a job takes on each class whose workers may claim it; None if nothing is known of workers or teacher.

    `spec` is resolved. `before` is what the job begins with where it continues another one.
    """
    allowed = [known for known in classes if spec.device_class in served_by(known.device_class)]
    if facts is None or not allowed:
        return None
    return [_outlook(spec, facts, known, before) for known in allowed]


def _outlook(spec: JobSpec, facts: JobFacts, known: WorkerClass, before: Continuation | None) -> Outlook:
    config = spec.distillation
    if before is None:
        found = forecast(config, facts, known.speed)
    else:
        found = forecast_rest(config, facts, known.speed, before)
    seconds, limit = found.total_seconds, config.budget.max_seconds
    if limit is not None:
        seconds = min(seconds, max(limit, found.first_student_seconds))
    estimate = ClassEstimate(
        worker_class=known.name,
        seconds=round(seconds, 1),
        memory_bytes=memory_need(config, facts, known.speed).total,
    )
    return Outlook(known, estimate, found.first_student_seconds)


def missed_memory(found: Sequence[Outlook]) -> Outlook | None:
    """Return the class that comes nearest to holding the job, if no class holds it."""
    if any(outlook.is_held for outlook in found):
        return None
    return min(found, key=lambda outlook: outlook.estimate.memory_bytes - (outlook.worker_class.memory_bytes or 0))


def missed_seconds(spec: JobSpec, found: Sequence[Outlook]) -> float | None:
    """Return what one student takes, end to end, if the time limit of the spec is certainly shorter."""
    limit, held = spec.distillation.budget.max_seconds, [outlook for outlook in found if outlook.is_held]
    soonest = min((outlook.first_student_seconds for outlook in held), default=0.0)
    return soonest if limit is not None and limit * TOLERANCE < soonest else None


def check_feasible(spec: JobSpec, found: Sequence[Outlook] | None, *, continues: bool) -> None:
    """Check that some known class of workers can hold the job and can make a student in its time.

    A job that continues another one may have a student from the start: its time is not judged.

    Raises:
        PlanInfeasible: none can.
    """
    nearest = missed_memory(found) if found else None
    if nearest is not None:
        raise _too_large(nearest)
    needed = None if continues else missed_seconds(spec, found or [])
    if needed is not None:
        limit = spec.distillation.budget.max_seconds
        raise PlanInfeasible(
            f"One student takes about {needed:.0f} seconds, from the teacher to its files; {limit:g} are allowed.",
            hint="Raise or leave out distillation.budget.max_seconds; POST /plans says what fits.",
            errors=[FieldError(MAX_SECONDS, f"must be about {needed:.0f} at least")],
            needed=round(needed, 1),
            allowed=limit,
        )


def _too_large(nearest: Outlook) -> PlanInfeasible:
    needed, allowed = nearest.estimate.memory_bytes, nearest.worker_class.memory_bytes
    return PlanInfeasible(
        f"The job needs about {needed:,} bytes of memory; workers of class {nearest.worker_class.name} have "
        f"{allowed:,}.",
        hint="Choose smaller batches or another method (POST /plans says what fits), or run a worker with more memory.",
        errors=[FieldError(LARGEST_BATCH, "the job's largest batch does not fit into any worker")],
        needed=needed,
        allowed=allowed,
    )


def over_a_day(found: Sequence[Outlook] | None, quotas: Quotas) -> list[Notice]:
    """Return the warning that a job takes more device-seconds than its tenant may use in a day."""
    limit = quotas.device_seconds_per_day
    seconds = min((outlook.estimate.seconds for outlook in found or []), default=0.0)
    if not limit or seconds <= limit:
        return []
    detail = f"the job takes about {seconds:.0f} device-seconds, and {limit} are allowed in a day"
    hint = "It pauses when the day's are used up and goes on the next day; choose a smaller effort to end sooner."
    return [Notice(code="longer-than-a-day", detail=detail, hint=hint)]
