"""What a forecast needs to know of a job, from the inspection of its teacher and its resolved spec (torch-free)."""

from dfkd_core.architectures.cost import cost_of
from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.inspection.run_facts import run_facts
from dfkd_core.planning.forecast import JobFacts
from dfkd_core.planning.network_costs import scaled_to
from dfkd_core.spec.config import DistillSpec


def job_facts(spec: DistillSpec, inspection: Inspection, student: NetworkDescription | None) -> JobFacts | None:
    """Return the facts of a resolved spec; None if the inspection does not tell what an image costs its teacher.

    `student` is None for a narrowed teacher, which has the layers of its teacher.
    """
    if inspection.cost is None:
        return None
    run = run_facts(spec, inspection, student)
    narrowed = scaled_to(inspection.cost, run.student, of=run.teacher) if student is None else cost_of(student)
    return JobFacts(run, teacher=inspection.cost, student=narrowed)
