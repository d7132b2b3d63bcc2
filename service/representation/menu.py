"""The menu, derived from the options classes: a method or memory that is added there appears here and in the API."""

from dfkd.wire.menu import Menu, StudentsFor, StudentView
from dfkd_core.architectures import catalogue
from dfkd_core.spec.config import StudentSpec
from service.representation.json_schemas import MEMORIES, METHODS, options_schema, spec_schema


def menu(sized_for: StudentsFor) -> Menu:
    """Schemas of the spec, and the catalogue for one input.

    Raises:
        StudentError: no student can be sized for this input.
    """
    return Menu(
        spec=spec_schema(),
        methods={name: options_schema(cls) for name, cls in METHODS.items()},
        memories={name: options_schema(cls) for name, cls in MEMORIES.items()},
        student=StudentSpec.model_json_schema(),
        students_for=sized_for,
        students=students(sized_for),
    )


def students(sized_for: StudentsFor) -> list[StudentView]:
    """Every architecture of the catalogue, with its size for this input or the reason why it cannot take it."""
    shape = (sized_for.channels, sized_for.height, sized_for.width)
    entries = catalogue(shape, sized_for.num_classes, sized_for.student_width)
    return [StudentView.model_validate(entry) for entry in entries]
