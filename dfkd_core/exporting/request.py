"""The request for an export, and its result. Torch-free."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dfkd_core.inspection.inspection import Inspection
from dfkd_core.options.field_types import Frozen
from dfkd_core.report import FileFacts, TeacherVerification
from dfkd_core.spec.teacher import TeacherSpec

SOURCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""How a request names code: package.module:name."""


class ExportRequest(Frozen):
    """A request to export one teacher, from code or from a file of weights."""

    source: str = Field(description="package.module:name, which is imported and run, or a file of weights.")
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
    opset: Annotated[int, Field(ge=11, le=22)] = Field(18, description="ONNX operator-set version.")
    batch: Annotated[int, Field(ge=1)] | None = Field(None, description="Fixed batch size; any where absent.")

    @property
    def runs_code(self) -> bool:
        """Whether `source` names code rather than a file."""
        return SOURCE.fullmatch(self.source) is not None and not Path(self.source).exists()


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
