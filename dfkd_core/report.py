"""report.json (torch-free): everything that was measured about one job, and what it does not say.

`Report` is put together once, at the end of a job; every number in it was measured in that job or is stated as given.
"""

from typing import Any, Final, Literal

from pydantic import Field

from dfkd_core.input_estimate import InputEstimate
from dfkd_core.interface import TeacherInterface
from dfkd_core.notice import Notice
from dfkd_core.options.field_types import Fraction, Frozen

SCHEMA_VERSION: Final = 1
AUDIT_SOURCE = "audit set: synthetic, never used to choose"
HONESTY = (
    "Agreement was measured on synthetic images: it says how often the student decides as its teacher does there. "
    "It is not accuracy on your data; measure that on labelled images of your own before you rely on the student."
)

Sha256 = str


class FileFacts(Frozen):
    """One file, by content."""

    sha256: Sha256 = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the bytes, in hex.")
    bytes: int = Field(ge=0, description="Size of the file.")


InputName = Literal["teacher", "spec", "code", "checkpoint"]


class InputFacts(FileFacts):
    """Something that went into the job."""

    name: InputName = Field(
        description="teacher: the uploaded file. spec: `spec` below, as JSON with sorted keys, without spaces, in "
        "ASCII. code: the lines `sha256  path` of dfkd_core's Python files. checkpoint: from which the run went on."
    )


class Latency(Frozen):
    """Time of one ONNX Runtime call on the CPU, after warm-up."""

    median_ms: float = Field(ge=0, description="Median of all repeats, for the whole batch.")
    p5_ms: float = Field(ge=0, description="5th percentile.")
    p95_ms: float = Field(ge=0, description="95th percentile.")
    repeats: int = Field(ge=1, description="Timed calls.")
    threads: int = Field(ge=1, description="Threads inside one operator (intra_op_num_threads).")
    batch: int = Field(ge=1, description="Images in one call.")
    cpu: str = Field(description="Model name of the processor.")


class PrecisionFacts(Frozen):
    """In which precision the networks were computed, and why."""

    value: Literal["fp32", "bf16"] = Field(
        description="What `distillation.compute.precision` has to be for the same bytes again."
    )
    because: Literal["asked", "measured", "checkpoint", "not-measured", "depthwise"] = Field(
        description="asked: the spec says so. Where it says auto: measured: the worker had tried bfloat16. checkpoint: "
        "the run that it goes on from was computed so. not-measured: nothing was known, so fp32. depthwise: bfloat16 "
        "pays on this CPU, but not for the depthwise convolutions of teacher or student."
    )
    bf16_tries: list[float] = Field(
        [], description="How many times faster bfloat16 was in each try of the worker, where that decided."
    )


class TeacherVerification(Frozen):
    """The results of running the teacher before the training."""

    max_abs_diff: float | None = Field(
        description="Largest difference of our reading's logits to ONNX Runtime's; null: not an ONNX file."
    )
    tolerance: float | None = Field(description="The largest difference allowed, relative to the largest logit.")
    batches: list[int] = Field(description="Batch sizes compared.")
    gradient_error: float = Field(ge=0, description="Relative error of the input gradient against finite differences.")
    dead_input_fraction: Fraction = Field(description="Share of the input's values that no logit depends on.")
    outputs: str = Field(description="logits or log-probabilities.")


class TeacherFacts(Frozen):
    """The teacher as it was uploaded."""

    file: FileFacts = Field(description="Digest and size of the uploaded file.")
    format: Literal["onnx", "safetensors"] = Field(description="Format of the uploaded file.")
    parameters: int = Field(ge=0, description="Trained values.")
    macs: int | None = Field(
        description="Multiply-adds of convolutions and linear layers for one image; null: unknown."
    )
    interface: TeacherInterface | None = Field(None, description="What the teacher takes and returns.")
    input_space: InputEstimate | None = Field(
        None,
        description="Which pixel values its file shows. Those that were used are in `spec.teacher.input`, with how "
        "sure they are (`assumed`) where nobody told them.",
    )
    latency: Latency | None = Field(description="Null where the teacher is not an ONNX file, or computes in float64.")
    depth: TeacherVerification = Field(description="Parity with ONNX Runtime and health of its gradient.")


class WeightsInput(Frozen):
    """What the network of student.safetensors takes: float images (N, C, H, W), to which it gives logits.

    Their values are (value - offset) / scale of the values that student.onnx takes.
    """

    offset: float = Field(0.0, description="What is subtracted from a value that student.onnx takes.")
    scale: float = Field(1.0, description="What the difference is divided by.")


class StudentFacts(Frozen):
    """The student that was published."""

    architecture: str = Field(description="Name in the catalogue.")
    width: float = Field(description="Width multiplier.")
    options: dict[str, float] = Field(description="The family's options, defaults filled in.")
    init: str = Field(description="How its weights started: random or teacher.")
    parameters: int = Field(ge=0, description="Trained values.")
    macs: int = Field(ge=0, description="Multiply-adds of convolutions and linear layers for one image.")
    onnx: FileFacts = Field(description="student.onnx.")
    safetensors: FileFacts = Field(description="student.safetensors.")
    interface: TeacherInterface | None = Field(
        None, description="What student.onnx takes and returns: the same as its teacher."
    )
    weights_input: WeightsInput = Field(
        WeightsInput(), description="The values that the network of student.safetensors takes."
    )
    latency: Latency = Field(description="Latency of student.onnx.")


class Ratios(Frozen):
    """How many times the student fits into its teacher; above 1 the student is the smaller or faster one."""

    parameters: float = Field(description="Teacher's parameters / student's.")
    macs: float | None = Field(description="Teacher's multiply-adds / student's; null: unknown.")
    bytes: float = Field(description="Bytes of the teacher's file / of student.onnx.")
    latency: float | None = Field(description="Teacher's median / student's; null: not measured alike.")


class ClassAgreement(Frozen):
    """Agreement on the images that the teacher gives to one class."""

    class_index: int = Field(ge=0, description="Index of the teacher's largest logit.")
    count: int = Field(ge=0, description="Images that the teacher gives to this class.")
    agreement: Fraction | None = Field(
        description="Share of them that the student gives to it too; null without images."
    )


class Agreement(Frozen):
    """How often, and how closely, the student says what the teacher says."""

    value: Fraction = Field(description="Share of images on which both have the same largest logit.")
    interval: list[float] = Field(
        min_length=2, max_length=2, description="Exact (Clopper–Pearson) confidence interval of `value`: [low, high]."
    )
    confidence: Fraction = Field(description="Level of the interval.")
    n: int = Field(ge=1, description="Images.")
    kl_mean: float = Field(description="Mean over images of KL(teacher ‖ student) of the softmax outputs, in nats.")
    kl_p95: float = Field(description="95th percentile over images of the same.")
    logit_diff_mean: float = Field(ge=0, description="Mean absolute difference of logits.")
    logit_diff_max: float = Field(ge=0, description="Largest absolute difference of logits.")
    worst_class: ClassAgreement = Field(description="Class with the least agreement among those with images.")
    per_class: list[ClassAgreement] = Field(description="Every class, in order.")
    source: str = Field(AUDIT_SOURCE, description="Which images these are.")


class Parity(Frozen):
    """ONNX Runtime on student.onnx against PyTorch on the student, on fresh images, through the file's interface."""

    max_abs_diff: float = Field(ge=0, description="Largest absolute difference of what they return.")
    max_scaled_diff: float = Field(
        ge=0, description="The same, divided by the batch's largest number or 1 if that is less."
    )
    tolerance: float = Field(gt=0, description="Largest scaled difference that passes.")
    top1_mismatches: int = Field(ge=0, description="Images whose class differs; only ties within tolerance pass.")
    batches: list[int] = Field(description="Batch sizes compared.")


class Versions(Frozen):
    """The versions of the software that computed the student."""

    dfkd: str = Field(description="This package.")
    python: str = Field(description="Interpreter.")
    torch: str = Field(description="PyTorch, with its build tag.")
    onnx: str = Field(description="ONNX.")
    onnxruntime: str = Field(description="ONNX Runtime.")
    packages: dict[str, str] = Field(description="Other packages that computed something, with their versions.")


class Report(Frozen):
    """Everything measured about one job."""

    schema_version: Literal[1] = Field(SCHEMA_VERSION, description="Version of this layout.")
    versions: Versions = Field(description="Software that computed the student.")
    inputs: list[InputFacts] = Field(description="Everything that went in, by digest. Nothing else did: no data.")
    spec: dict[str, Any] = Field(description="The request as accepted, every default filled in.")
    seed: int = Field(description="Seed of every random draw.")
    threads: int = Field(ge=1, description="CPU threads of the training process.")
    device: str = Field(description="Where the training ran: cpu, or cuda with the device's name.")
    precision: PrecisionFacts | None = Field(
        None, description="Precision of the networks' computation; null: what the spec says, by an earlier version."
    )
    teacher: TeacherFacts = Field(description="The teacher.")
    student: StudentFacts = Field(description="The published student.")
    ratios: Ratios = Field(description="Teacher against student.")
    agreement: Agreement = Field(description="Student against teacher on the audit set.")
    parity: Parity = Field(description="The exported file against the trained network.")
    samples: FileFacts | None = Field(None, description="The file samples.png; null if the spec asks for no samples.")
    published_step: int = Field(ge=0, description="Student updates behind the published student.")
    probe_agreement: Fraction | None = Field(
        description="Agreement on the probe that chose the published student: flattering, see `agreement`."
    )
    curve: list[dict[str, Any]] = Field(
        description="One entry per probing: step, agreement of the raw, averaged and published student, losses."
    )
    counters: dict[str, int] = Field(description="Images synthesized, student updates, teacher forwards, rollbacks, …")
    memory_bytes: int = Field(ge=0, description="What had to be kept to replay the past.")
    warnings: list[Notice] = Field(description="In the order in which they arose.")
    durations: dict[str, float] = Field(description="Seconds per stage: load, inspect, distill, export, verify.")
    honesty: str = Field(HONESTY, description="What agreement does not say.")

    def to_json(self) -> str:
        """Return the text of report.json: UTF-8, indented, fields in the order above, no NaN."""
        return self.model_dump_json(indent=2) + "\n"


def compression(teacher: TeacherFacts, student: StudentFacts) -> Ratios:
    """Teacher over student. Latencies are compared only where batch, threads and processor are the same."""
    return Ratios(
        parameters=_ratio(teacher.parameters, student.parameters),
        macs=None if teacher.macs is None else _ratio(teacher.macs, student.macs),
        bytes=_ratio(teacher.file.bytes, student.onnx.bytes),
        latency=_latency_ratio(teacher.latency, student.latency),
    )


def _latency_ratio(teacher: Latency | None, student: Latency) -> float | None:
    if teacher is None or student.median_ms == 0:
        return None
    alike = (teacher.batch, teacher.threads, teacher.cpu) == (student.batch, student.threads, student.cpu)
    return _ratio(teacher.median_ms, student.median_ms) if alike else None


def _ratio(teacher: float, student: float) -> float:
    return round(teacher / student, 4)
