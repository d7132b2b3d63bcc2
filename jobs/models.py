"""The values of the ledger: immutable models that the store returns. Each field has a description."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, RootModel

from dfkd_core.notice import Notice
from dfkd_core.planning.worker_speed import WorkerSpeed
from dfkd_core.spec.compute import AUTO_PRECISION
from dfkd_core.spec.config import Budget, DistillSpec, Procedural
from dfkd_core.spec.json_pointer import leaves
from jobs.devices import DeviceClass

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class FrozenModel(BaseModel):
    """Base of the models: instances are immutable, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class JobSpec(DistillSpec):
    """What the caller asked for, with every default filled in. Stored and echoed verbatim."""

    name: Annotated[str, Field(pattern=r"^[\w .-]{1,64}$")] | None = Field(None, description="A name for people.")
    labels: Annotated[dict[Label, Label], Field(max_length=32)] = Field(
        default_factory=dict, description="Key and value pairs to filter by."
    )
    device: Literal["cpu", "gpu"] | None = Field(
        None, description="Class of the device that the job runs on; null: whichever worker is free first."
    )

    @property
    def device_class(self) -> DeviceClass:
        """The class of the workers that may claim the job."""
        return DeviceClass(self.device or DeviceClass.ANY)

    @property
    def version(self) -> int:
        """The lowest spec version that can represent this spec; see SPEC_VERSION."""
        if self.distillation.training.block_weight or self._draws_more_than_shapes() or self._newer_options():
            return 3
        if NEWER_METHODS & {self.distillation.method, self.distillation.fallback}:
            return 3
        if self.distillation.budget.effort != USUAL_EFFORT or not all(self._open_sizes().values()):
            return 3
        images = self.teacher.input
        if self.teacher.output is not None:
            return 3
        if images is not None and (images.layout is not None or images.shape is None or images.range is None):
            return 3
        return 1 if self.device is None and not self.export.samples else 2

    def request(self) -> dict[str, Any]:
        """Return what makes two requests equal: all values, and which of the settings that may be left open are set.

        A setting that is left open may become another value than its default, see `budget.effort` and `method: auto`.
        """
        asked = self.distillation.model_dump(mode="json", exclude_unset=True, include=MAY_BE_OPEN)
        return {**self.model_dump(mode="json"), "asked": sorted(leaves(asked))}

    def text(self) -> str:
        """Return the stored JSON. It omits newer fields at their defaults, so that older versions can read it.

        A precision that is left to the worker is omitted too: to older workers that means fp32.
        """
        compute = self.distillation.compute
        return self.model_dump_json(
            exclude={
                "device": self.device is None,
                "export": {"samples": not self.export.samples},
                "distillation": {
                    "budget": {"effort": self.distillation.budget.effort == USUAL_EFFORT},
                    "compute": {**self._open_sizes(), "precision": compute.precision == AUTO_PRECISION},
                    "training": {"block_weight": not self.distillation.training.block_weight},
                    "method_options": NEWER_OPTIONS - self._newer_options(),
                    "procedural": {"kinds"} if self.distillation.procedural.kinds == Procedural().kinds else set(),
                },
                "teacher": {
                    "output": self.version < 3,
                    "input": {"layout": self.version < 3, "assumed": self.version < 3},
                },
            }
        )

    def _draws_more_than_shapes(self) -> bool:
        """Return whether earlier versions do not know what is drawn, to learn from or to start inversions from."""
        kinds = {*self.distillation.procedural.kinds, getattr(self.distillation.method_options, "start", "shapes")}
        return not kinds <= {"shapes", "smooth", "normal"}

    def _newer_options(self) -> set[str]:
        """Return the newer options of the method that have another value than their default."""
        options = self.distillation.method_options
        known = NEWER_OPTIONS & type(options).model_fields.keys()
        return {name for name in known if getattr(options, name) != type(options).model_fields[name].default}

    def _open_sizes(self) -> dict[str, bool]:
        """Return for each size of micro-batches and chunks whether it is left open; a job's are filled in."""
        return {name: getattr(self.distillation.compute, name) is None for name in SIZES}


USUAL_EFFORT = Budget().effort
NEWER_METHODS = {"zskd"}
NEWER_OPTIONS = {"coarse_steps", "figure_share", "figure_learning_rate", "figure_candidates", "pseudo_statistics"}
SIZES = ("micro_batch", "chunk", "label_chunk")
MAY_BE_OPEN: dict[str, Any] = {
    "budget": {"steps"},
    **dict.fromkeys(("fallback", "training", "procedural", "steadiness", "method_options", "memory_options"), True),
}
"""The settings of a distillation that are filled in when a job is taken, for `model_dump`."""

SPEC_VERSION = 3
"""The highest spec version that this release reads; a worker leaves jobs of a higher version to newer workers. The
version rises with the first change that creates specs which the latest release cannot read. Each job is stored under
the lowest version that can represent its spec: 3 if it names another effort than the usual one, compares blocks, draws
other images than shapes, names NEWER_METHODS, sets NEWER_OPTIONS, has sizes of micro-batches or says what the teacher's
file takes and returns, as every spec does that was resolved with a file; 2 if it asks for a device or for samples; else
1."""


class UnreadableSpec(RootModel[dict[str, Any]]):
    """The JSON object of a stored spec that this version cannot read because another version wrote it."""

    model_config = ConfigDict(frozen=True)

    @property
    def name(self) -> str | None:
        """The name of the job, if the spec has a text there."""
        name = self.root.get("name")
        return name if isinstance(name, str) else None

    @property
    def labels(self) -> dict[str, str]:
        """The labels whose values are texts."""
        labels = self.root.get("labels")
        return {key: text for key, text in labels.items() if isinstance(text, str)} if isinstance(labels, dict) else {}


class JobState(StrEnum):
    """Stored states. A client sees a running job with a cancel or pause request as `cancelling` or `pausing`."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


TERMINAL = tuple(state for state in JobState if state.terminal)
CANCELLING, PAUSING = "cancelling", "pausing"

STAGES = ("load", "inspect", "distill", "export", "verify")
"""The stages of a running job, in this order. Clients must tolerate new stages."""


class Progress(FrozenModel):
    """The progress of a job. `fraction` never falls, not even in a later attempt."""

    stage: str = Field("queued", description="queued or paused, then one of STAGES, then done.")
    fraction: float = Field(0.0, ge=0, le=1, description="Share of the whole job that is done.")
    step: int = Field(0, ge=0, description="Student updates done.")
    total_steps: int = Field(0, ge=0, description="Student updates in all; 0 until known.")
    agreement: float | None = Field(
        None, description="Agreement of the published student with its teacher, on the probe."
    )
    message: str | None = Field(None, description="What is being done, in one line for people.")
    eta_seconds: float | None = Field(None, ge=0, description="Running time left when this was written.")


class ClassEstimate(FrozenModel):
    """What a job will take on one class of workers."""

    worker_class: str = Field(description="Name of the class, such as cpu-2.")
    seconds: float = Field(ge=0, description="Running time.")
    memory_bytes: int = Field(ge=0, description="Largest memory of its runner; of the GPU on workers with a GPU.")


class BestStudent(FrozenModel):
    """The student that the job would deliver if it stopped now."""

    step: int = Field(description="Student update at which it was published.")
    agreement: float = Field(
        description="Its newest score: agreement with the teacher on the synthetic probe; equal to progress.agreement."
    )


class JobError(Notice):
    """The reason why a job failed. docs/api.md lists the codes."""

    stage: str | None = Field(None, description="The stage in which it happened.")
    attempt: int | None = Field(None, description="The attempt in which it happened.")


class ArtifactRef(FrozenModel):
    """One file of a job. The store keeps it under the digest of its bytes."""

    name: str = Field(description="student.onnx, student.safetensors, report.json or samples.png.")
    sha256: Sha256 = Field(description="Digest of the bytes; also the ETag.")
    bytes: int = Field(ge=0, description="Size.")
    media_type: str = Field(description="What the bytes are.")


DEPTH = "depth"  # key of TeacherRef.inspection: the verification report of the first job that ran the teacher
SAID = "spec"  # key of TeacherRef.inspection: what the caller said of the teacher with its upload


class TeacherRef(FrozenModel):
    """An uploaded teacher. It is immutable, and its id is the digest of its bytes."""

    id: Sha256 = Field(description="sha256 of the file.")
    bytes: int = Field(ge=0, description="Size.")
    format: str = Field(description="onnx or safetensors, told from the content.")
    created_at: datetime = Field(description="When it was first uploaded.")
    inspection: dict[str, Any] = Field(default_factory=dict, description="What the structural inspection found.")


class Job(FrozenModel):
    """One job: it makes one student from one teacher."""

    id: str = Field(description="Random UUID, made by the service.")
    state: JobState = Field(description="Stored state.")
    spec: JobSpec | UnreadableSpec = Field(description="What was asked for, every default filled in.")
    teacher: TeacherRef = Field(description="The teacher's file.")
    progress: Progress = Field(Progress(), description="How far it is.")
    best: BestStudent | None = Field(None, description="The published student, while there is one.")
    attempt: int = Field(0, description="How often it has been claimed and charged.")
    fence: int = Field(0, description="Fencing number: rises with every claim, guards every write.")
    threads: int | None = Field(None, description="Intra-op threads of its runner; fixed by the first claim.")
    cancel_requested: bool = Field(False, description="A cancel is under way.")
    pause_requested: bool = Field(False, description="A pause is under way.")
    warnings: list[Notice] = Field(default_factory=list, description="What the caller should know.")
    error: JobError | None = Field(None, description="Why it failed; null unless failed.")
    artifacts: list[ArtifactRef] = Field(
        default_factory=list, description="What can be downloaded; empty until succeeded."
    )
    revision: int = Field(description="Rises with every change; the ETag.")
    created_at: datetime = Field(description="When it was accepted.")
    updated_at: datetime = Field(description="When it last changed.")
    started_at: datetime | None = Field(None, description="When it was first claimed.")
    finished_at: datetime | None = Field(None, description="When it reached a terminal state.")
    claimed_at: datetime | None = Field(None, description="When the attempt that is running was claimed.")
    heartbeat_at: datetime | None = Field(None, description="When its worker last renewed the lease.")
    running_seconds: float = Field(0.0, ge=0, description="Running time in finished attempts; queueing is not counted.")
    traceparent: str | None = Field(None, description="Trace (W3C) to which the job belongs, as its caller said.")
    device_class: DeviceClass = Field(DeviceClass.ANY, description="Whose workers may take it.")

    retried_from: str | None = Field(None, description="The job of which this is another try.")
    continued_from: str | None = Field(None, description="The job from whose last checkpoint this one goes on.")
    continued_budget: Budget | None = Field(None, description="The budget under which that checkpoint was written.")
    estimate: list[ClassEstimate] | None = Field(
        None, description="What it takes on each class of workers; null if none was known when it was accepted."
    )
    eta_at: datetime | None = Field(None, description="When `progress.eta_seconds` was written.")

    @property
    def public_state(self) -> str:
        """The state that a client sees."""
        if self.state is JobState.RUNNING and self.cancel_requested:
            return CANCELLING
        if self.state is JobState.RUNNING and self.pause_requested:
            return PAUSING
        return self.state.value


class Event(FrozenModel):
    """One event in the history of a job. Events are never changed."""

    seq: int = Field(description="Rises within a job; pass the last one seen as `after`.")
    job_id: str = Field(description="The job.")
    kind: str = Field(description="created, claimed, stage, published, checkpoint, warning, released, succeeded, ...")
    fence: int = Field(description="Fencing number of the claim under which it was written; 0 outside claims.")
    at: datetime = Field(description="Database time.")
    data: dict[str, Any] = Field(default_factory=dict, description="What the kind brings along.")


class JobWithPosition(NamedTuple):
    """A job and its place in the queue, read in one transaction."""

    job: Job
    queue_position: int | None  # 1 for the job that is claimed next; None unless it is queued


class JobPage(FrozenModel):
    """One page of a list, newest first."""

    jobs: list[Job] = Field(description="The jobs.")
    next_cursor: str | None = Field(None, description="Opaque; absent on the last page.")


class Worker(FrozenModel):
    """A worker process, as its last heartbeat describes it."""

    id: str = Field(description="Random, new for every process.")
    host: str = Field(description="Where it runs.")
    slots: int = Field(ge=1, description="Runners at once.")
    device: str = Field(description="cpu, cuda or cuda:N.")
    started_at: datetime = Field(description="When it was first seen.")
    seen_at: datetime = Field(description="When it was last seen.")
    worker_class: str | None = Field(None, description="Name of its class; null until its speed was measured.")


class WorkerClass(FrozenModel):
    """Workers that are equally fast and have equally much memory, as far as a plan is concerned."""

    name: str = Field(description="Such as cpu-2 or gpu-nvidia-h200.")
    device_class: DeviceClass = Field(description="CPU or GPU.")
    speed: WorkerSpeed = Field(description="What the newest benchmark of its slowest worker measured.")
    memory_bytes: int | None = Field(None, description="Memory for one runner on the largest of its workers.")
    slots: int = Field(ge=1, description="Runners at once, over its workers that are alive; 1 if none is.")


class PurgedFile(FrozenModel):
    """A file that the tenant no longer has."""

    sha256: Sha256 = Field(description="Digest of its bytes; they are removed unless others have them, too.")
    bytes: int = Field(ge=0, description="How many there were.")
    role: list[str] = Field(description="teacher, checkpoint, or the name of an artifact.")


class RetainedFile(FrozenModel):
    """A file that belonged to the deleted job or teacher, and that the tenant still has."""

    sha256: Sha256 = Field(description="Digest of the file.")
    role: list[str] = Field(description="teacher, checkpoint, or the name of an artifact.")
    reason: str = Field(description="Why it stays.")


class PurgeReceipt(FrozenModel):
    """The receipt of a deletion: what was removed, and what stays."""

    kind: Literal["job", "teacher"] = Field(description="What was deleted.")
    id: str = Field(description="Its id.")
    deleted_at: datetime = Field(description="When its rows went, by the clock of the database.")
    rows: dict[str, int] = Field(description="Rows that were deleted or emptied, by table.")
    files: list[PurgedFile] = Field(description="Files that are the tenant's no longer.")
    kept: list[RetainedFile] = Field(description="Files that stay, and why.")
