"""From a plan to the model of the wire."""

from dfkd.wire.job import EstimateView, WarningView
from dfkd.wire.plan import MissView, NetworkView, PlanOptionView, PlanView, WorkerClassView
from dfkd_core.planning.precision_choice import measured_precision
from service.intake.plans import Option, Plan, advice

FILE_BYTES = 2000  # of an ONNX file, for each layer, beside its weights
FLOAT_BYTES = 4


def plan_view(plan: Plan) -> PlanView:
    """Return a plan as its client sees it."""
    inspection = plan.inspection
    teacher = NetworkView(
        name=plan.asked.spec.teacher.architecture,
        parameters=inspection.parameters,
        macs=inspection.macs,
        bytes=plan.teacher_bytes,
    )
    return PlanView(
        teacher=teacher,
        student=_student(plan),
        worker_classes=[
            WorkerClassView(
                name=known.name,
                device=known.device_class,
                memory_bytes=known.memory_bytes,
                slots=known.slots,
                precision=measured_precision(known.speed.bf16_tries),
            )
            for known in plan.classes
        ],
        options=[_option(option, chosen=option is plan.asked) for option in plan.options],
        advice=advice(plan),
        warnings=[WarningView.model_validate(warning.model_dump()) for warning in plan.asked.warnings],
    )


def _student(plan: Plan) -> NetworkView:
    facts, spec = plan.asked.facts, plan.asked.spec
    size = facts.student
    return NetworkView(
        name=spec.student.architecture,
        parameters=size.parameters,
        macs=size.macs,
        bytes=FLOAT_BYTES * size.parameters + FILE_BYTES * size.operations,
    )


def _option(option: Option, *, chosen: bool) -> PlanOptionView:
    config, found = option.spec.distillation, option.outlooks
    estimate = None if found is None else [EstimateView(**outlook.estimate.model_dump()) for outlook in found]
    return PlanOptionView(
        effort=option.effort,
        method=option.method,
        resolves_to=config.method,
        because=config.because,
        chosen=chosen,
        steps=config.budget.steps,
        estimate=estimate,
        fits=option.fits,
        misses=[
            MissView(limit=miss.limit, allowed=miss.allowed, needed=miss.needed, pointer=miss.pointer)
            for miss in option.misses
        ],
    )
