"""What a job would take: seconds and memory on each class of workers, and which efforts and methods fit."""

from pydantic import Field

from dfkd.wire.job import EstimateView, WarningView
from dfkd.wire.model import Answer


class WorkerClassView(Answer):
    """Workers that are equally fast."""

    name: str = Field(description="Such as cpu-2 or gpu-nvidia-h200.")
    device: str = Field(description="cpu or gpu: what `device` of a spec asks for.")
    memory_bytes: int | None = Field(description="Memory for one job on the largest of them; null if not limited.")
    slots: int = Field(description="Jobs that they run at once; 1 if none is alive.")
    precision: str = Field(
        "fp32", description="What `distillation.compute.precision` auto becomes there: fp32, or bf16 where that pays."
    )


class NetworkView(Answer):
    """The size of a network."""

    name: str | None = Field(description="The student's architecture; null for a teacher that the file describes.")
    parameters: int = Field(description="Number of trained values.")
    macs: int | None = Field(description="Multiply-adds for one image; null if the file does not tell.")
    bytes: int = Field(description="Size of its file.")


class MissView(Answer):
    """A limit that a job would miss."""

    limit: str = Field(
        description="memory, max-seconds (of the spec), running-seconds (of the service) or "
        "device-seconds-per-day (of the tenant; a job that is longer is accepted with a warning)."
    )
    allowed: float = Field(description="The limit, in bytes or seconds.")
    needed: float = Field(description="What the job would take of it, on the class of workers that takes least.")
    pointer: str | None = Field(description="JSON pointer to the field of the spec that sets the limit, if one does.")


class PlanOptionView(Answer):
    """One way to run the job."""

    effort: str | None = Field(description="quick, standard or thorough; null where the spec gives `steps` itself.")
    method: str = Field(description="Value for `distillation.method`.")
    resolves_to: str = Field(description="The method itself: what `auto` chooses.")
    because: str | None = Field(description="Why auto chooses it; null for a method that is named.")
    chosen: bool = Field(description="True for what the spec would be resolved to if it were submitted as it is.")
    steps: int = Field(description="Student updates in all.")
    estimate: list[EstimateView] | None = Field(description="By class of workers; null if none was ever seen.")
    fits: bool = Field(description="Whether POST /jobs would accept it.")
    misses: list[MissView] = Field(description="Limits that it would miss.")


class PlanView(Answer):
    """What a job would take."""

    teacher: NetworkView
    student: NetworkView
    worker_classes: list[WorkerClassView] = Field(description="The classes that were ever seen.")
    options: list[PlanOptionView] = Field(description="Every effort and method that the teacher can serve.")
    advice: str | None = Field(description="What would fit, if the spec as it is does not.")
    warnings: list[WarningView] = Field(description="What the job would be accepted with.")
