"""What a job would take, for every effort and method that its teacher can serve. Nothing is kept.

Functions block (child process, SQL) and run in the thread pool.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from dfkd_core.errors import DfkdError
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.inspection.run_facts import run_facts
from dfkd_core.inspection.suitability import suitability
from dfkd_core.notice import Notice
from dfkd_core.planning.work import RunFacts
from dfkd_core.spec.config import AUTO, DistillConfig, Effort
from jobs.models import JobSpec, WorkerClass
from jobs.quota_limits import UNLIMITED, Quotas
from jobs.settings import Settings
from service.dependencies import AppContext
from service.intake.estimates import MAX_SECONDS, Outlook, assess, missed_memory, missed_seconds
from service.intake.inspection_cache import inspect
from service.intake.submit import inspected, known_teacher
from service.intake.uploads import Submission

OF_A_METHOD = ("method", "method_options", "memory", "memory_options", "preset", "fallback", "because")
"""Settings that belong to one method, and are left out where another one is planned."""

Json = dict[str, Any]  # Any: JSON


@dataclass(frozen=True, slots=True)
class Miss:
    """A limit that a job would miss."""

    limit: str
    allowed: float
    needed: float
    pointer: str | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """One effort with one method."""

    effort: Effort | None  # None: the spec gives the steps itself
    method: str  # what the spec would say
    spec: JobSpec  # resolved
    facts: RunFacts
    warnings: Sequence[Notice]
    outlooks: Sequence[Outlook] | None
    misses: Sequence[Miss]

    @property
    def fits(self) -> bool:
        """Whether the job would be accepted and could end."""
        return all(miss.limit == DAILY for miss in self.misses)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would take. The first option is what the spec asks for."""

    inspection: Inspection
    teacher_bytes: int
    classes: Sequence[WorkerClass]
    options: Sequence[Option]

    @property
    def asked(self) -> Option:
        """The option that the spec would become if it were submitted."""
        return self.options[0]


DAILY = "device-seconds-per-day"


def plan_submission(context: AppContext, submission: Submission) -> Plan:
    """Return the plan of a teacher and a spec that came together; the file is removed."""
    teacher, spec = submission.teacher, submission.spec
    assert teacher is not None  # both parts came, or the submission was refused
    assert spec is not None
    with teacher.upload.discarding():
        known = known_teacher(context, teacher.upload.sha256)
        inspection = inspect(teacher.upload.path, spec.teacher, context.settings, known=known)
        found = _plan_here(context, spec, inspection, teacher_bytes=teacher.upload.bytes)
        teacher.upload.discard()
        return found


def plan_request(context: AppContext, spec: JobSpec, teacher_id: str) -> Plan:
    """Return the plan for a teacher that was uploaded before."""
    teacher, spec, inspection = inspected(context, spec, teacher_id)
    return _plan_here(context, spec, inspection, teacher_bytes=teacher.bytes)


def _plan_here(context: AppContext, spec: JobSpec, inspection: Inspection, *, teacher_bytes: int) -> Plan:
    classes, quotas = context.ledger.worker_classes(context.settings.lease_seconds), context.store.quota_limits()
    return plan(
        spec, inspection, teacher_bytes=teacher_bytes, classes=classes, settings=context.settings, quotas=quotas
    )


def plan(
    spec: JobSpec,
    inspection: Inspection,
    *,
    teacher_bytes: int,
    classes: Sequence[WorkerClass],
    settings: Settings,
    quotas: Quotas = UNLIMITED,
) -> Plan:
    """Estimate every effort and method.

    Raises:
        DfkdError: teacher and spec do not fit together, as POST /jobs would say.
    """
    planner = _Planner(settings, inspection, classes, quotas)
    return Plan(inspection, teacher_bytes, classes, [planner.asked(spec), *planner.others(spec)])


@dataclass(frozen=True, slots=True)
class _Planner:
    settings: Settings
    inspection: Inspection
    classes: Sequence[WorkerClass]
    quotas: Quotas

    def asked(self, spec: JobSpec) -> Option:
        """Return what the spec asks for."""
        config = spec.distillation
        return self._option(spec, effort=None if _gives_steps(config) else config.budget.effort, method=config.method)

    def others(self, spec: JobSpec) -> Iterator[Option]:
        """Every other effort with the method that is asked for, `auto`, and every method that the teacher serves."""
        asked = spec.distillation
        efforts: Sequence[Effort | None] = [None] if _gives_steps(asked) else get_args(Effort)
        for method in dict.fromkeys((asked.method, AUTO, *suitability(self.inspection).served)):
            for effort in efforts:
                if (method, effort) != (asked.method, None if _gives_steps(asked) else asked.budget.effort):
                    yield from self._feasible(spec, effort, method)

    def _feasible(self, spec: JobSpec, effort: Effort | None, method: str) -> Iterator[Option]:
        """Yield the option, unless settings of the spec do not go together with the method."""
        try:
            changed = spec.model_copy(update={"distillation": _config(spec.distillation, effort, method)})
            yield self._option(changed, effort=effort, method=method)
        except (DfkdError, ValidationError):
            return

    def _option(self, spec: JobSpec, *, effort: Effort | None, method: str) -> Option:
        found = assess(spec, self.inspection, self.settings, classes=self.classes, quotas=self.quotas)
        return Option(
            effort=effort,
            method=method,
            spec=found.spec,
            facts=run_facts(found.spec, self.inspection, found.student),
            warnings=found.warnings,
            outlooks=found.outlooks,
            misses=list(self._misses(found.spec, found.outlooks or [])),
        )

    def _misses(self, spec: JobSpec, found: Sequence[Outlook]) -> Iterator[Miss]:
        if not found:
            return
        memory = missed_memory(found)
        if memory is not None:
            yield Miss("memory", memory.worker_class.memory_bytes or 0, memory.estimate.memory_bytes)
        needed = missed_seconds(spec, found)
        if needed is not None:
            yield Miss("max-seconds", spec.distillation.budget.max_seconds or 0.0, needed, MAX_SECONDS)
        seconds = min(outlook.estimate.seconds for outlook in found)
        if seconds > self.settings.max_running_seconds:
            yield Miss("running-seconds", self.settings.max_running_seconds, seconds)
        if self.quotas.device_seconds_per_day and seconds > self.quotas.device_seconds_per_day:
            yield Miss(DAILY, self.quotas.device_seconds_per_day, seconds)


def _gives_steps(config: DistillConfig) -> bool:
    return "steps" in config.budget.model_fields_set


def _config(asked: DistillConfig, effort: Effort | None, method: str) -> DistillConfig:
    """Return what was asked for with another effort and method; settings of the former method are left out."""
    document: Json = asked.model_dump(mode="json", exclude_unset=True)
    if method != asked.method:
        document = {name: value for name, value in document.items() if name not in OF_A_METHOD}
    budget = document.get("budget", {}) | ({} if effort is None else {"effort": effort})
    return DistillConfig.model_validate({**document, "method": method, "budget": budget})


def advice(plan: Plan) -> str | None:
    """Return what would fit, if what the spec asks for does not; None if it fits, or if nothing is known."""
    if plan.asked.fits:
        return None
    fitting = [option for option in plan.options if option.fits and option.outlooks]
    if not fitting:
        return "No effort and no method fits: choose smaller batches, a longer time limit or a larger worker."
    best = max(fitting, key=lambda option: (option.method == plan.asked.method, _seconds(option)))
    effort = "" if best.effort is None else f" with distillation.budget.effort {best.effort}"
    return f"distillation.method {best.method}{effort} fits: about {_seconds(best):.0f} seconds."


def _seconds(option: Option) -> float:
    return min((outlook.estimate.seconds for outlook in option.outlooks or []), default=0.0)
