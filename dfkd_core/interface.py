"""TeacherInterface (torch-free): what a teacher's file takes and returns. Its students' files do the same.

Inside, everything works on float images (N, C, H, W) and on logits (N, num_classes). The importer wraps a teacher's
graph so that it does too; the export wraps the student's network so that its file looks like its teacher's.
"""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Layout = Literal["NCHW", "NHWC"]
InputType = Literal["float32", "float16", "float64", "uint8"]
OutputType = Literal["float32", "float16", "float64"]
OutputForm = Literal["logits", "probabilities", "log-probabilities"]


class TeacherInterface(BaseModel):
    """The input and the output of an ONNX file that classifies images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_name: str = Field("images", description="Name of the input.")
    input_type: InputType = Field("float32", description="Element type of the input; uint8: pixels from 0 to 255.")
    layout: Layout = Field("NCHW", description="NCHW: channels before height and width; NHWC: channels last.")
    input_rank: Literal[2, 3, 4] = Field(
        4, description="4: images; 3: (N, height, width), one channel; 2: each image is one row of numbers."
    )
    output_name: str = Field("logits", description="Name of the output.")
    output_type: OutputType = Field("float32", description="Element type of the output.")
    output_form: OutputForm = Field("logits", description="What the numbers are.")
    output_shape: list[int] = Field(
        description="Shape of the output for one image. With a single number there are two classes: the number is the "
        "logit or the probability of the second."
    )

    @property
    def is_binary(self) -> bool:
        """Whether one number for each image tells two classes apart."""
        return math.prod(self.output_shape) == 1

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return 2 if self.is_binary else math.prod(self.output_shape)

    def dims_of(self, image_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the sizes of one image in the file's input, for images of `image_shape` (C, H, W)."""
        return dims_of(image_shape, layout=self.layout, rank=self.input_rank)


def dims_of(image_shape: Sequence[int], *, layout: Layout, rank: int) -> tuple[int, ...]:
    """Return the sizes of one image of `image_shape` (C, H, W) in an input of `rank` dimensions, the batch included."""
    channels, height, width = image_shape
    if rank == 2:
        return (channels * height * width,)
    if rank == 3:
        return (height, width)
    return (channels, height, width) if layout == "NCHW" else (height, width, channels)


def plain_interface(num_classes: int) -> TeacherInterface:
    """Return the interface of a teacher without an ONNX file: float images (N, C, H, W) → logits (N, num_classes)."""
    return TeacherInterface(output_shape=[num_classes])
