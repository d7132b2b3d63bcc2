"""The menu, read off the menu classes: what is added there appears here, in the API and in the command line."""

from typing import Any, get_args

from pydantic import BaseModel

from dfkd_core import config
from dfkd_core.config import StudentSpec
from dfkd_core.students import catalogue
from jobs.schemas import JobSpec
from service.views import Menu, StudentsFor, StudentView

DEFAULT_SHAPE = (3, 32, 32)
DEFAULT_CLASSES = 10


def menu(sized_for: StudentsFor) -> Menu:
    """Schemas of the spec, and the catalogue for one input. StudentError where the input is no input."""
    return Menu(
        spec=JobSpec.model_json_schema(),
        methods=_schemas(config.MethodOptions),
        memories=_schemas(config.MemoryOptions),
        student=StudentSpec.model_json_schema(),
        students_for=sized_for,
        students=students(sized_for),
    )


def students(sized_for: StudentsFor) -> list[StudentView]:
    """Every architecture of the catalogue: its size for this input, or why it refuses."""
    shape = (sized_for.channels, sized_for.height, sized_for.width)
    entries = catalogue(shape, sized_for.num_classes, sized_for.student_width)
    return [StudentView.model_validate(entry) for entry in entries]


def _schemas(union: Any) -> dict[str, Any]:  # Any: a typing construct, and JSON
    """The options classes in an annotated union, by the name that stands in the spec."""
    annotated = get_args(union)[0]
    classes: tuple[type[BaseModel], ...] = get_args(annotated) or (annotated,)
    return {cls.model_fields["name"].default: _without_tag(cls) for cls in classes}


def _without_tag(cls: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema as the caller sees it: the name is given by `method` or `memory`, not among the options."""
    schema = cls.model_json_schema()
    schema["properties"].pop("name")
    return {**schema, "needs": sorted(getattr(cls, "needs", ()))}
