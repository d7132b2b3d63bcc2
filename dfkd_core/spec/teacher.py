"""What the caller says about a teacher's file and its images (torch-free). Unknown keys are refused."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dfkd_core.input_estimate import Certainty
from dfkd_core.interface import Layout
from dfkd_core.options.field_types import FiniteFloat, Frozen, Positive


class InputSpec(Frozen):
    """The teacher's input space: what its images look like, and which values are valid."""

    shape: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=3, max_length=3)] | None = Field(
        None,
        description="[channels, height, width] of one image in any layout. Read from an ONNX graph if absent.",
    )
    layout: Layout | None = Field(
        None,
        description="Where the channels of the file's images are: NCHW (first) or NHWC (last). If absent, it is read "
        "from an ONNX graph; NCHW if the graph does not show it.",
    )
    mean: Annotated[list[FiniteFloat], Field(min_length=1)] | None = Field(
        None, description="Mean of each channel, or one for all, that the caller subtracts."
    )
    std: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None, description="Standard deviation of each channel, or one for all, that the caller divides by."
    )
    range: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="[lowest, highest] pixel value before normalisation. [0, 1] if absent, [0, 255] for uint8 images.",
    )
    assumed: Certainty | None = Field(
        None,
        description="How sure the service is of mean, std and range where nobody told them: sure, likely, or unknown "
        "where they are only what is usual. It fills this in; null where they were told.",
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_an_old_default(cls, value: Any) -> Any:
        """Read specs that were stored before layouts existed: they hold this range where nobody had given one."""
        stored = isinstance(value, dict) and "layout" not in value and {"mean", "std"} <= value.keys()
        if stored and value["mean"] is None and value.get("range") == [0.0, 1.0]:
            return {**value, "range": None}
        return value

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std come together")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and self.shape is not None and len(values) not in (1, self.shape[0]):
                raise ValueError(f"{name} has {len(values)} values for {self.shape[0]} channels")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("range must be [lowest, highest]")
        return self

    @property
    def is_range_known(self) -> bool:
        """Whether it is said which values are valid, by the caller or from what the file shows."""
        return self.mean is not None or self.range is not None

    def pixel_bounds(self, channels: int, *, whole: bool = False) -> tuple[list[float], list[float]]:
        """Return the lowest and highest valid value of each channel of the teacher's images.

        `whole`: the images are whole numbers, which are valid from 0 to 255 unless `range` says otherwise. Where
        nothing is known, the values are those of [-3, 3]: only specs are so that an earlier version resolved.
        """
        low, high = self.range or ([0.0, 255.0] if whole else [0.0, 1.0])
        if self.mean is not None and self.std is not None:
            pairs = list(zip(_of_each(self.mean, channels), _of_each(self.std, channels), strict=True))
            return [(low - mean) / std for mean, std in pairs], [(high - mean) / std for mean, std in pairs]
        if not whole and self.range is None:
            low, high = -3.0, 3.0
        return [low] * channels, [high] * channels

    def for_channels(self, channels: int) -> Self:
        """Return the same input space with a mean and a standard deviation for each of its channels."""
        told = {name: values for name in ("mean", "std") if (values := getattr(self, name)) is not None}
        return self.model_copy(update={name: _of_each(values, channels) for name, values in told.items()})


def _of_each(values: list[float], channels: int) -> list[float]:
    return values * channels if len(values) == 1 else values


class TeacherSpec(Frozen):
    """What the caller says about the teacher file; all of it is checked against the file."""

    format: Literal["onnx", "safetensors"] | None = Field(None, description="Told from the content when absent.")
    architecture: str | None = Field(
        None, max_length=64, description="Named architecture of the catalogue; safetensors teachers need it."
    )
    width: Positive | None = Field(None, description="Width multiplier of the named architecture; 1 when absent.")
    input: InputSpec | None = Field(None, description="Read from an ONNX graph where absent.")
    output: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(
        None, description="Name of the ONNX graph's output that holds the classes; needed if there are several outputs."
    )
    num_classes: Annotated[int, Field(ge=2, le=100_000)] | None = Field(
        None, description="Read from the file where absent."
    )

    @property
    def told_shape(self) -> tuple[int, ...] | None:
        """The shape (C, H, W) of the images, if the caller told it."""
        return None if self.input is None or self.input.shape is None else tuple(self.input.shape)

    @property
    def told_layout(self) -> Layout | None:
        """The layout of the images, if the caller told it."""
        return None if self.input is None else self.input.layout
