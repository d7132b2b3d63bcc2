"""The options that tell `inspect`, `upload`, `plan` and `submit` a job's spec, and the document made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from dfkd.cli.options import numbers
from dfkd.errors import UsageError

if TYPE_CHECKING:
    from dfkd_core.spec.teacher import TeacherSpec

TEACHER_HELP = (
    "An ONNX or safetensors file; or the code of a PyTorch network, module:name or file.py:name, which is run and "
    "exported here"
)

Architecture = Annotated[
    str | None, typer.Option(help="Architecture of a safetensors teacher; `dfkd students` lists them.")
]
Shape = Annotated[str | None, typer.Option(help="channels,height,width of one image.")]
Layout = Annotated[
    str | None,
    typer.Option(help="NHWC or NCHW: where the channels of the images are, if the graph hides it."),
]
PixelRange = Annotated[
    str | None, typer.Option("--range", help="lowest,highest pixel value before mean and std: 0,1 if absent.")
]
TeacherOutput = Annotated[
    str | None, typer.Option(help="Name of the graph's output that holds the classes, if there are several outputs.")
]
SpecFile = Annotated[Path | None, typer.Option("--spec", help="JSON file to start from.", exists=True, dir_okay=False)]
Assign = Annotated[
    list[str] | None, typer.Option("--set", help="dotted.path=value, from the root of the spec; repeat for more.")
]
Student = Annotated[str | None, typer.Option(help="Architecture of the student; `dfkd students` lists them.")]
Effort = Annotated[
    str | None, typer.Option(help="quick, standard or thorough: how much to compute; standard where none is given.")
]
Method = Annotated[str | None, typer.Option(help="How images are made: auto, or one of the methods of the menu.")]

Document = dict[str, Any]  # Any: JSON
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class TeacherOptions:
    """What the options say of a teacher, as they were typed; None where they say nothing."""

    architecture: str | None = None
    shape: str | None = None
    layout: str | None = None
    mean: str | None = None
    std: str | None = None
    range: str | None = None
    output: str | None = None

    def put(self, document: Document) -> None:
        """Write what was given into the spec's `teacher`.

        Raises:
            UsageError: a list of numbers is none.
            BadOption: the shape is none.
        """
        from dfkd_core.spec import overrides

        told = {
            "architecture": self.architecture,
            "output": self.output,
            "input.shape": None if self.shape is None else list(overrides.shape(self.shape)),
            "input.layout": None if self.layout is None else self.layout.upper(),
            "input.mean": numbers("mean", self.mean),
            "input.std": numbers("std", self.std),
            "input.range": numbers("range", self.range),
        }
        for path, value in told.items():
            if value is not None:
                overrides.put(document, f"teacher.{path}", value)


def spec_document(
    file: Path | None,
    teacher: TeacherOptions,
    assignments: Sequence[str] | None,
    *,
    student: str | None = None,
    effort: str | None = None,
    method: str | None = None,
) -> Document:
    """Return the spec: what is in the file, over it the options, over them the assignments of `--set`.

    Raises:
        UsageError: a list of numbers is none.
        BadOption: the file, the shape or an assignment cannot be read.
    """
    from dfkd_core.spec import overrides

    document = overrides.read_spec_file(file) if file else {}
    teacher.put(document)
    told = {"student.architecture": student, "distillation.budget.effort": effort, "distillation.method": method}
    for path, value in told.items():
        if value is not None:
            overrides.put(document, path, value)
    overrides.apply(document, assignments or [])
    return document


def input_in(document: Document) -> Document:
    """Return the spec's `teacher.input`, empty where it says nothing that could be one."""
    teacher = document.get("teacher")
    space = teacher.get("input") if isinstance(teacher, dict) else None
    return space if isinstance(space, dict) else {}


def teacher_in(document: Document) -> "TeacherSpec":
    """Return the spec's `teacher`.

    Raises:
        UsageError: it contradicts the schema.
    """
    from dfkd_core.spec.teacher import TeacherSpec

    return validated(TeacherSpec, document.get("teacher", {}), place="teacher")


def validated(model: type[M], document: object, *, place: str = "") -> M:
    """Return the document as a model.

    Raises:
        UsageError: it contradicts the schema; the message names the first field to blame, below `place`.
    """
    from dfkd_core.spec.explanation import explained

    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(filter(None, (place, *map(str, first["loc"]))))
        raise UsageError(f"{path or 'the spec'}: {explained(first, model)}") from None
