"""What the options of a command say about a teacher."""

from typing import Any

from pydantic import ValidationError

from dfkd_core.spec import overrides
from dfkd_core.spec.config import TeacherSpec


def told_of_teacher(architecture: str | None, shape: str | None, assignments: list[str]) -> TeacherSpec:
    """A spec of the teacher; BadOption where it would make none."""
    document: dict[str, Any] = {}
    if architecture is not None:
        document["architecture"] = architecture
    if shape is not None:
        document["input"] = {"shape": list(overrides.shape(shape))}
    overrides.apply(document, assignments)
    try:
        return TeacherSpec.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise overrides.BadOption(f"teacher.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
