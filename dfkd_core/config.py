"""The menu (torch-free): what to compute, with every default. Frozen, strict, unknown keys refused.

`DistillSpec` is the whole request: teacher, student, distillation, accept, export. A method or a memory brings its
options class here and its implementation in `methods/` or `memories/` under the same name.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

MAX_SEED = 2**63 - 1


class Frozen(BaseModel):
    """A value that came from a request: immutable, strictly typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class InputSpec(Frozen):
    """The teacher's input space. `images` are (N, C, H, W) floats, already normalised as the teacher expects."""

    shape: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=3, max_length=3)] = Field(
        description="[channels, height, width] of one image."
    )
    mean: list[FiniteFloat] | None = Field(None, description="Per-channel mean that the caller subtracts.")
    std: list[Positive] | None = Field(None, description="Per-channel standard deviation that the caller divides by.")
    range: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)] = Field(
        [0.0, 1.0], description="[lowest, highest] pixel value before normalisation."
    )

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std come together")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.shape[0]:
                raise ValueError(f"{name} has {len(values)} values for {self.shape[0]} channels")
        if self.range[0] >= self.range[1]:
            raise ValueError("range must be [lowest, highest]")
        return self

    def pixel_bounds(self) -> tuple[list[float], list[float]]:
        """Lowest and highest valid value of each channel in the teacher's input space; [-3, 3] when unknown."""
        channels = self.shape[0]
        if self.mean is None or self.std is None:
            return [-3.0] * channels, [3.0] * channels
        low = [(self.range[0] - m) / s for m, s in zip(self.mean, self.std, strict=True)]
        high = [(self.range[1] - m) / s for m, s in zip(self.mean, self.std, strict=True)]
        return low, high


class TeacherSpec(Frozen):
    """What the caller says about the teacher file; all of it is checked against the file."""

    format: Literal["onnx", "safetensors"] | None = Field(None, description="Told from the content when absent.")
    architecture: str | None = Field(
        None, max_length=64, description="Named architecture of the catalogue; safetensors teachers need it."
    )
    width: Positive | None = Field(None, description="Width multiplier of the named architecture; 1 when absent.")
    input: InputSpec | None = Field(None, description="Read from an ONNX graph where absent.")
    num_classes: Annotated[int, Field(ge=2, le=100_000)] | None = Field(
        None, description="Read from the file where absent."
    )


class StudentSpec(Frozen):
    """Which student to build."""

    architecture: str = Field(max_length=64, description="Name from the catalogue (GET /menu, `dfkd students`).")
    width: Annotated[float, Field(gt=0, le=16, allow_inf_nan=False)] = Field(1.0, description="Width multiplier.")
    init: Literal["auto", "random"] = Field(
        "auto", description="How the student starts; auto is the best known for the pair (now: random)."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="The family's own options.")


class AgreementTarget(Frozen):
    """The least agreement with the teacher, on the audit set, that the caller accepts."""

    min: Fraction


class AcceptSpec(Frozen):
    """When a student is good enough."""

    agreement: AgreementTarget | None = None
    on_miss: Literal["deliver", "fail"] = Field("deliver", description="deliver adds a warning; fail fails the job.")


class ExportSpec(Frozen):
    """How the student leaves."""

    opset: Annotated[int, Field(ge=18, le=21)] = Field(18, description="ONNX operator-set version.")


class Budget(Frozen):
    """How long to distil. Schedules count steps; seconds only stop the job, which then delivers its best student."""

    steps: Annotated[int, Field(ge=1, le=10_000_000)] = Field(6000, description="Student updates in all.")
    max_seconds: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)] | None = Field(
        None, description="Wall-clock limit on running time; what was published by then is delivered."
    )


class PreDfkdOptions(Frozen):
    """PRE-DFKD's novel generator (Binici et al., AAAI 2022): settings and loss weights."""

    name: Literal["pre_dfkd"] = Field("pre_dfkd", exclude=True)


class NoMemoryOptions(Frozen):
    """No replay."""

    name: Literal["none"] = Field("none", exclude=True)


class ReservoirOptions(Frozen):
    """Uniform sample of everything ever synthesized, class-balanced, 8-bit images with cached logits."""

    name: Literal["reservoir"] = Field("reservoir", exclude=True)


class VaeOptions(Frozen):
    """Generative pseudo replay: a VAE models what the generator ever produced; its decoder is the memory."""

    name: Literal["vae"] = Field("vae", exclude=True)


MethodOptions = Annotated[PreDfkdOptions, Field()]  # a discriminated union as soon as there is a second method
MemoryOptions = Annotated[NoMemoryOptions | ReservoirOptions | VaeOptions, Field(discriminator="name")]


class DistillConfig(Frozen):
    """How to distil: the method that synthesizes, the memory that replays, the student's training and the budget."""

    method: Literal["pre_dfkd"] = "pre_dfkd"
    memory: Literal["none", "reservoir", "vae"] = "vae"
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    budget: Budget = Budget()
    method_options: MethodOptions = PreDfkdOptions()
    memory_options: MemoryOptions = VaeOptions()

    @model_validator(mode="before")
    @classmethod
    def _name_the_options(cls, value: Any) -> Any:
        """Give each options object the name of its method or memory, so that its own class validates it."""
        if not isinstance(value, dict):
            return value
        named = dict(value)
        for role, default in (("method", "pre_dfkd"), ("memory", "vae")):
            options = named.get(f"{role}_options", {})
            if isinstance(options, dict):
                named[f"{role}_options"] = {**options, "name": named.get(role, default)}
        return named


class DistillSpec(Frozen):
    """The whole request: one teacher in, one student out."""

    teacher: TeacherSpec = TeacherSpec()
    student: StudentSpec
    accept: AcceptSpec = AcceptSpec()
    distillation: DistillConfig = Field(default_factory=lambda: DistillConfig.model_validate({}))
    export: ExportSpec = ExportSpec()
