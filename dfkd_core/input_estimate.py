"""InputEstimate: what a teacher's file shows of the pixel values that it was trained on (torch-free)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Certainty = Literal["sure", "likely", "unknown"]
Basis = Literal["element-type", "graph", "batchnorm", "folded", "answers", "default"]
Kind = Literal["strokes", "shapes", "scenes", "pages", "figures"]


class ToldPixels(BaseModel):
    """What a caller said of the pixels when the file was inspected, and how well the file fits it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: list[float] | None = Field(None, description="Mean that is subtracted, of each channel or one for all.")
    std: list[float] | None = Field(None, description="Standard deviation that is divided by, likewise.")
    range: list[float] = Field(description="[lowest, highest] pixel value before mean and std.")
    distance: float = Field(description="Its distance.")


class InputEstimate(BaseModel):
    """A usual convention for pixel values, and how well the teacher's file fits it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    convention: str = Field(description="Name of the convention, such as zero-one, bytes, imagenet, cifar10 or mnist.")
    mean: list[float] | None = Field(None, description="Mean that is subtracted, of each channel or one for all.")
    std: list[float] | None = Field(None, description="Standard deviation that is divided by, likewise.")
    range: list[float] = Field(description="[lowest, highest] pixel value before mean and std.")
    certainty: Certainty = Field(
        description="sure, likely, or unknown: the file does not tell; this fits it best, or is what is usual."
    )
    basis: Basis = Field(
        description="element-type: the file takes uint8; graph: the graph normalises its images itself; batchnorm: the "
        "running statistics; folded: biases and weights into which statistics were folded; answers: what the whole "
        "network answers to drawn pictures; default: nothing."
    )
    distance: float | None = Field(
        None,
        description="How far BatchNorm statistics on drawn pictures are from the running ones under this convention: "
        "mean over layers and channels of the shift in standard deviations plus the |log of the variance ratio|.",
    )
    next_convention: str | None = Field(None, description="The best convention with clearly other pixel values.")
    next_distance: float | None = Field(None, description="Its distance.")
    pictures: Kind | None = Field(
        None,
        description="The kind of drawn pictures that fits best: grey strokes and areas, coloured shapes, natural "
        "scenes, pages of dark signs on white, or figures of one or two strokes.",
    )
    distances: dict[str, float] = Field(
        default_factory=dict, description="The distance of every convention that was tried."
    )
    told: ToldPixels | None = Field(None, description="The same of what was told; null where nothing was.")
