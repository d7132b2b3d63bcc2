"""The request for an export, and its result. Torch-free."""

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from dfkd_core.inspection.inspection import Inspection
from dfkd_core.options.field_types import FiniteFloat, Frozen, Positive
from dfkd_core.report import FileFacts, TeacherVerification
from dfkd_core.spec.teacher import InputSpec, TeacherSpec

SOURCE = re.compile(r"(?:[A-Za-z_][\w.]*|.+\.py):[A-Za-z_][\w.]*")
"""How a request names code: package.module:name, or folder/file.py:name."""


def names_code(source: str) -> bool:
    """Return whether the text has the form of code's name, and is not that of a file."""
    return SOURCE.fullmatch(source) is not None and not Path(source).exists()


class ExportRequest(Frozen):
    """A request to export one teacher, from code or from a file of weights."""

    source: str = Field(
        description="package.module:name or file.py:name, which is imported and run, or a file of weights."
    )
    output: Path = Field(description="Where the teacher is written.")
    weights: Path | None = Field(None, description="A file of weights for the network of `source`.")
    pick: str | None = Field(None, description="Which part of the file of weights, as a dotted path.")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments of the function in `source`."
    )
    input_shape: Annotated[list[int], Field(min_length=3, max_length=3)] | None = Field(
        None, description="[channels, height, width] of one image."
    )
    architecture: str | None = Field(None, description="Name in the catalogue: write its weights as safetensors.")
    width: Annotated[float, Field(gt=0)] | None = Field(None, description="Width multiplier of that architecture.")
    num_classes: Annotated[int, Field(ge=2)] | None = Field(None, description="Read from the weights where absent.")
    logits: str | None = Field(None, description="Which of several outputs are the logits: a name or a number.")
    mean: list[FiniteFloat] | None = Field(None, description="Per-channel mean; the file is compared on such images.")
    std: list[Positive] | None = Field(None, description="Per-channel standard deviation.")
    opset: Annotated[int, Field(ge=11, le=22)] = Field(18, description="ONNX operator-set version.")
    batch: Annotated[int, Field(ge=1)] | None = Field(None, description="Fixed batch size; any where absent.")

    @model_validator(mode="after")
    def _is_an_input_space(self) -> Self:
        if self.input_shape is not None:
            try:
                InputSpec(shape=self.input_shape, mean=self.mean, std=self.std)
            except ValidationError as error:
                raise ValueError(error.errors()[0]["msg"]) from None
        return self

    @property
    def runs_code(self) -> bool:
        """Return whether `source` names code rather than a file."""
        return names_code(self.source)


class Exported(Frozen):
    """A teacher that was written and checked. `told` is its name in the JSON that users read."""

    path: Path = Field(description="Where it is.")
    file: FileFacts = Field(description="Digest and size.")
    told: list[str] = Field(description="What was chosen, changed and left out on the way.")
    max_abs_diff: float | None = Field(
        description="Largest difference of logits between file and network; null: only weights were given."
    )
    inspection: Inspection = Field(description="What the service will see before it takes a job.")
    depth: TeacherVerification | None = Field(
        description="What a job will see first; null: the architecture is not known."
    )
    teacher: TeacherSpec = Field(description="What to say of it in the spec.")
