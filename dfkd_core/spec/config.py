"""The models of the spec (torch-free): what to compute, with every default. Unknown keys are refused.

`DistillSpec` is the whole request: teacher, student, distillation, accept, export. The options of methods and memories
are in `dfkd_core.options`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from dfkd_core.options.field_types import Fraction, Frozen, Positive, Weight
from dfkd_core.options.kinds import Kinds
from dfkd_core.options.memories.vae import VaeOptions
from dfkd_core.options.methods.pre_dfkd import PreDfkdOptions
from dfkd_core.options.registry import (
    MemoryName,
    MemoryOptions,
    MethodName,
    MethodOptions,
    MethodOrAuto,
    PresetName,
)
from dfkd_core.spec.compute import Compute, Precision
from dfkd_core.spec.presets import over_preset
from dfkd_core.spec.teacher import TeacherSpec

MAX_SEED = 2**63 - 1
AUTO = "auto"  # the method's name that leaves the choice to `resolve_auto`
PRUNED_TEACHER = "teacher"  # the architecture's name of a student that is the pruned teacher


Parameters = Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^\d{1,2}(\.\d{1,6})?%$")]


def _one_complaint(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Refuse a value with one sentence, not with one for each form that it could have had."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError('must be a number of parameters, or a share of the teacher\'s such as "25%"') from None


class StudentSpec(Frozen):
    """Which student to build: a named architecture, or the teacher's own graph with fewer channels."""

    architecture: str = Field(
        max_length=64,
        description='Name from the catalogue (GET /menu, `dfkd students`), or "teacher": its own graph, narrower.',
    )
    width: Annotated[float, Field(gt=0, le=16, allow_inf_nan=False)] = Field(
        1.0, description='Width multiplier; 0.5 for "teacher" where neither width nor params is given.'
    )
    params: Annotated[Parameters | None, WrapValidator(_one_complaint)] = Field(
        None, description='For "teacher": largest number of parameters, or a share such as "25%"; sets the width.'
    )
    init: Literal["auto", "teacher", "random"] = Field(
        "auto",
        description="How the student starts: teacher copies the best channels of a teacher that it is a thinner "
        "version of; auto does so where it can.",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="The family's own options.")

    @model_validator(mode="before")
    @classmethod
    def _half_the_width_by_default(cls, value: Any) -> Any:
        silent = isinstance(value, dict) and value.get("width") is None and value.get("params") is None
        return {**value, "width": 0.5} if silent and value.get("architecture") == PRUNED_TEACHER else value

    @model_validator(mode="after")
    def _params_need_a_pruned_teacher(self) -> Self:
        if self.params is not None and self.architecture != PRUNED_TEACHER:
            raise ValueError(f'params is for the architecture "{PRUNED_TEACHER}"; others take a width')
        if self.params is not None and self.width != 1.0:
            raise ValueError("params sets the width: give one of the two")
        return self

    def parameter_limit(self, of_teacher: int) -> int | None:
        """`params` as a number, for a teacher with this number of parameters."""
        if isinstance(self.params, str):
            return int(of_teacher * float(self.params.removesuffix("%")) / 100)
        return self.params


class AgreementTarget(Frozen):
    """The least agreement with the teacher, on the audit set, that the caller accepts."""

    min: Fraction


class AcceptSpec(Frozen):
    """The quality that the caller requires of the student."""

    agreement: AgreementTarget | None = None
    on_miss: Literal["deliver", "fail"] = Field("deliver", description="deliver adds a warning; fail fails the job.")


class ExportSpec(Frozen):
    """How the student is written to its files."""

    opset: Annotated[int, Field(ge=18, le=21)] = Field(18, description="ONNX operator-set version.")
    samples: bool = Field(
        False,
        description="Publish samples.png too: synthetic images, which may resemble what the teacher was trained on.",
    )


Effort = Literal["quick", "standard", "thorough"]


class Budget(Frozen):
    """How long to distil. Schedules count steps; seconds only stop the job, which then delivers its best student."""

    effort: Effort = Field(
        "standard",
        description="How much to compute: about 3, 15 and 60 minutes on two CPU cores for images of 28 to 48 pixels, "
        "longer for costly teachers of larger ones. It becomes numbers of steps, images and batches, where the spec is "
        "silent about them, when the job is taken; from then on only those count. Published settings keep theirs.",
    )
    steps: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        6000, description="Student updates in all. Where they are given, they win over the effort."
    )
    max_seconds: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)] | None = Field(
        None, description="Wall-clock limit on running time; what was published by then is delivered."
    )


class Augmentation(Frozen):
    """Random changes of a training image before teacher and student see it. The teacher labels the changed image."""

    shift: Fraction = Field(0.1, description="Largest shift, as a share of the side (3 pixels of 32).")
    flip: bool = Field(False, description="Mirror half of the images left to right.")
    rotation: Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)] = Field(
        10.0, description="Largest rotation either way, in degrees."
    )
    zoom: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = Field(
        0.0, description="Largest zoom: sizes are between 1 / (1 + zoom) and 1 + zoom of the original."
    )
    brightness: Fraction = Field(0.0, description="Largest change of all pixels, as a share of the valid range.")
    contrast: Fraction = Field(0.0, description="Largest relative change of the distance from the image's mean.")
    mixup: Fraction = Field(0.0, description="Share of images blended with another image.")
    noise: Fraction = Field(0.05, description="Largest pixel noise, as a share of the valid range.")

    @property
    def active(self) -> bool:
        """True if the augmentation changes images. Labels that were cached for unchanged images are then invalid."""
        return any(getattr(self, name) for name in type(self).model_fields)


class Refinement(Frozen):
    """New procedural images that take a few gradient steps towards random soft labels, every class equally often."""

    share: Fraction = Field(0.4, description="Share of the procedural images in a student batch; 0: none are made.")
    images_per_round: Annotated[int, Field(ge=4, le=100_000)] = Field(
        64, description="New ones in a round; a quarter is held out for probe and audit."
    )
    capacity: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        16_000, description="How many are kept, in a bank of their own; in 8 bits, at most 128 MiB or 4096."
    )
    steps: Annotated[int, Field(ge=1, le=10_000)] = Field(20, description="Steps of Adam on the pixels.")
    learning_rate: Positive = Field(0.03, description="Learning rate of Adam, as a share of the valid pixel range.")
    smoothness: Weight = Field(0.5, description="Weight of the total variation of pixels scaled to [0, 1].")
    bn_weight: Weight = Field(1.0, description="Weight of the BatchNorm statistics, where offered.")


class Procedural(Frozen):
    """Images that a program draws at random, labelled by the teacher, beside the synthesizer's. They need no data."""

    share: Fraction = Field(0.9, description="Share of a student batch that they are; published: 0.")
    kinds: Kinds = Field(
        ["shapes"],
        description="What is drawn, each kind equally often. shapes: strokes, areas and clouds; scenes: overlapping "
        "things with the statistics of photographs; marks: rows of strokes like writing, for teachers of documents; "
        "figures: one or two strokes of a pen, for teachers of digits and signs.",
    )
    images_per_round: Annotated[int, Field(ge=8, le=100_000)] = Field(
        4096, description="New ones in a round; a quarter is held out for probe and audit."
    )
    capacity: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        60_000, description="How many are kept to learn from, over all classes; in 8 bits, at most 128 MiB or 4096."
    )
    sharpness: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = Field(
        3.0, description="Exponent of the teacher's confidence in an image's chance to be kept; 0: all alike."
    )
    refinement: Refinement = Refinement()


class Training(Frozen):
    """How the student learns. A round is: generator updates, fresh images, student updates, memory update."""

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 0.01
    momentum: Fraction = Field(0.9, description="Momentum of SGD.")
    weight_decay: Weight = 0.0
    decay: Literal["cosine", "none"] = Field("cosine", description="Decay of the learning rate over the actual run.")
    rate_warmup: Fraction = Field(0.05, description="Share of the run in which the learning rate rises; published: 0.")
    batch_size: Annotated[int, Field(ge=2, le=8192)] = Field(256, description="Images per student update, with replay.")
    updates_per_round: Annotated[int, Field(ge=1, le=10_000)] = Field(40, description="Student updates per round.")
    fresh_batches: Annotated[int, Field(ge=1, le=100)] = Field(4, description="Generator batches drawn per round.")
    fresh_rounds: Annotated[int, Field(ge=1, le=1000)] = Field(4, description="Rounds for which fresh images are used.")
    replays_per_round: Annotated[int, Field(ge=1, le=100_000)] = Field(128, description="Images replayed per round.")
    replay_share: Fraction = Field(0.1, description="Remembered images in a student batch at the start.")
    final_replay_share: Fraction = Field(0.3, description="The same at the end.")
    loss: Literal["l1", "kl"] = Field(
        "kl", description="l1: mean |logit difference|, as published; kl: at `temperature`."
    )
    temperature: Positive = Field(4.0, description="Temperature of the kl loss.")
    hard_weight: Weight = Field(0.0, description="Weight of the cross-entropy with the teacher's class.")
    feature_weight: Weight = Field(
        0.0,
        description="Weight of how badly a linear map guesses the teacher's last features from the student's, where "
        "both end in a linear layer; on procedural and on optimised images; falls with the learning rate. 3 to 10 help "
        "short runs from random weights, 25 those on inverted images.",
    )
    block_weight: Weight = Field(
        0.0,
        description="Weight of how far the student's convolutions are from the same channels of its teacher's, where "
        "the student is its teacher's graph narrower and starts from its weights; on procedural and on optimised "
        "images; falls with the learning rate. It teaches large networks with few images.",
    )
    attention_weight: Weight = Field(
        0.0, description="Weight of the distance between the attention maps of student and teacher."
    )
    renormalise: bool = Field(
        True,
        description="Where the student is deep and no layer of it normalises, train it with BatchNorms behind its "
        "convolutions, which are folded into them before it leaves; published: false.",
    )
    gradient_clip: Positive | None = 5.0
    anchor_weight: Weight = Field(0.0, description="Weight of KL(average || student) on fresh images.")
    ema_decay: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        0.998,
        description="Decay of the averaged student per update, bias-corrected; the average spans at most 5 % of a run.",
    )
    augmentation: Augmentation = Augmentation()
    valid_range: bool = Field(
        True,
        description="Clamp what the student, the probe and the audit see to the valid pixel range; published: false.",
    )


class Steadiness(Frozen):
    """Settings that keep the published student from getting worse. None of them uses a real image."""

    consolidation: Fraction = Field(0.15, description="Last share of the run, with the generator frozen.")
    probe_size: Annotated[int, Field(ge=16, le=1_000_000)] = Field(2000, description="Held-out synthetic images.")
    audit_size: Annotated[int, Field(ge=16, le=1_000_000)] = Field(2000, description="Images of the final audit.")
    evaluations: Annotated[int, Field(ge=1, le=100_000)] = Field(60, description="Evaluations on the probe in a run.")
    margin: Weight = Field(
        2.0,
        description="Standard errors by which a new student must beat the published one; falls with the learning rate.",
    )
    min_class_entropy: Fraction = Field(
        0.2, description="Share of the maximal class entropy of a batch that counts as collapse."
    )
    min_diversity: Fraction = Field(
        0.2, description="Share of the healthy mean image distance that counts as collapse."
    )
    max_rollbacks: Annotated[int, Field(ge=0, le=100)] = Field(5, description="Roll-backs in a row before giving up.")


NO_OPTIONS = PreDfkdOptions().model_dump(mode="json")  # the options that a dumped spec with `auto` holds


class DistillConfig(Frozen):
    """How to distil: the method that synthesizes, the memory that replays, the student's training and the budget."""

    method: MethodOrAuto = Field(
        "pre_dfkd",
        description="What synthesizes. auto, also where the spec names neither method nor preset nor options of one: "
        "the best known for what the teacher offers; see `because`.",
    )
    because: Annotated[str, Field(max_length=500)] | None = Field(
        None, description="Why auto became this method; filled in when the job is taken."
    )
    fallback: MethodName | None = Field(
        None, description="Method that takes over when this one collapses or a poor student gets no better for long."
    )
    preset: PresetName = Field(
        "default",
        description="Settings that apply where the spec is silent: our best, those of the paper's code, or "
        "those of a paper of which not all could be read.",
    )
    memory: MemoryName = "vae"
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    budget: Budget = Budget()
    training: Training = Training()
    procedural: Procedural = Procedural()
    steadiness: Steadiness = Steadiness()
    compute: Compute = Compute()
    method_options: MethodOptions = PreDfkdOptions()
    memory_options: MemoryOptions = VaeOptions()

    def computed_in(self, precision: Precision) -> "DistillConfig":
        """Return the same with this precision if it is left open, and unchanged otherwise."""
        return self.model_copy(update={"compute": self.compute.computed_in(precision)})

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_options(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Merge the request over its preset, and give each options object the name of its method or memory, so that
        its own class validates it. What only the preset sets does not count as set.

        Options with the name of another method or memory are refused, because they would be ignored.
        """
        if not isinstance(value, dict):
            return validate(value)
        said = value
        value = over_preset(value, method=cls.model_fields["method"].default, memory=cls.model_fields["memory"].default)
        named, foreign = dict(value), []
        if value.get("method") == AUTO and value.get("method_options", {}) not in ({}, NO_OPTIONS):
            raise PydanticCustomError("options_of_auto", "options belong to a method: name one instead of auto")
        for role in ("method", "memory"):
            asked = value.get(role, cls.model_fields[role].default)
            asked = cls.model_fields[role].default if asked == AUTO else asked
            options = value.get(f"{role}_options", {})
            if isinstance(options, dict):
                named[f"{role}_options"] = {**options, "name": asked}
                foreign += _foreign_name(cls, role, options.get("name", asked), asked)
        try:
            made = validate(named)
        except ValidationError as error:
            if not foreign:
                raise
            raise _with_errors(error, foreign) from None
        if foreign:
            raise ValidationError.from_exception_data(cls.__name__, foreign)
        _keep_set(made, said)
        return made


def _keep_set(model: Frozen, said: Mapping[str, Any]) -> None:
    """Let only those fields count as set that the caller set, not those of the preset."""
    for name in model.model_fields_set - said.keys():
        model.model_fields_set.remove(name)
    for name, value in said.items():
        field = getattr(model, name)
        if isinstance(field, Frozen) and isinstance(value, Mapping):
            _keep_set(field, value)


def _foreign_name(config: type[DistillConfig], role: str, name: Any, asked: Any) -> list[InitErrorDetails]:
    """Return the validation error for options that name another method or memory, at the pointer of that name."""
    if name == asked:
        return []
    tag = (str(asked),) if config.model_fields[f"{role}_options"].discriminator else ()
    return [InitErrorDetails(type="extra_forbidden", loc=(f"{role}_options", *tag, "name"), input=name)]


def _with_errors(error: ValidationError, more: list[InitErrorDetails]) -> ValidationError:
    """`error` with further validation errors."""
    lines = [
        InitErrorDetails(type=line["type"], loc=line["loc"], input=line["input"], ctx=line.get("ctx", {}))
        for line in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data(error.title, [*lines, *more])


class DistillSpec(Frozen):
    """The whole request: one teacher in, one student out. The method is `auto` unless the request names one."""

    teacher: TeacherSpec = TeacherSpec()
    student: StudentSpec
    accept: AcceptSpec = AcceptSpec()
    distillation: DistillConfig = Field(default_factory=lambda: DistillConfig.model_validate({}))
    export: ExportSpec = ExportSpec()

    @model_validator(mode="before")
    @classmethod
    def _auto_where_nothing_is_said(cls, value: Any) -> Any:
        said = value.get("distillation", {}) if isinstance(value, dict) else None
        if not isinstance(said, dict) or said.keys() & {"method", "method_options", "preset"}:
            return value
        return {**value, "distillation": {**said, "method": AUTO}}
