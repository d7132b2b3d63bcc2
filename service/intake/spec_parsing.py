"""Parses JSON text into a `JobSpec` and reports all invalid fields at once, each with its JSON pointer."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from dfkd_core.architectures import ARCHITECTURES
from dfkd_core.architectures.catalogue import unknown_architecture
from dfkd_core.spec.config import PRUNED_TEACHER, DistillConfig
from dfkd_core.spec.explanation import explained
from dfkd_core.spec.json_pointer import child_pointer
from dfkd_core.spec.teacher import TeacherSpec
from jobs.models import JobSpec, Sha256
from service.intake.strict_json import read_json_object
from service.problems.errors import MAX_ERRORS, FieldError, ValidationFailed

M = TypeVar("M", bound=BaseModel)

_UNION_ERRORS = {"union_tag_invalid", "union_tag_not_found"}
_TAGGED = {name for name, field in DistillConfig.model_fields.items() if field.discriminator is not None}


class TeacherById(TeacherSpec):
    """What the caller says about a teacher that was uploaded before."""

    id: Sha256 = Field(description="The id that POST /teachers gave.")


class JobRequest(JobSpec):
    """The JSON body of POST /jobs: a spec whose teacher has an id."""

    teacher: TeacherById


def read_spec(text: bytes, *, max_bytes: int) -> JobSpec:
    """Return the `spec` part of a multipart request."""
    spec = validate(JobSpec, read_json_object(text, max_bytes=max_bytes))
    _check_student(spec)
    return spec


def read_request(text: bytes, *, max_bytes: int) -> tuple[JobSpec, str]:
    """Return the JSON body of POST /jobs → spec, id of the teacher."""
    request = validate(JobRequest, read_json_object(text, max_bytes=max_bytes))
    _check_student(request)
    fields = {name: getattr(request, name) for name in JobSpec.model_fields}
    teacher = {name: getattr(request.teacher, name) for name in request.teacher.model_fields_set - {"id"}}
    return JobSpec(**{**fields, "teacher": TeacherSpec(**teacher)}), request.teacher.id


def validate(model: type[M], document: dict[str, Any]) -> M:
    """`document` as a `model`; raises ValidationFailed with the first MAX_ERRORS fields to blame."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise ValidationFailed(
            "The spec is not valid.",
            errors=_field_errors(found, document, model),
            hint="Each field is named with what is known in its place. GET /menu has the JSON Schema of the spec.",
        ) from None


def _check_student(spec: JobSpec) -> None:
    """Refuse an unknown architecture before the teacher is inspected."""
    if spec.student.architecture not in (*ARCHITECTURES, PRUNED_TEACHER):
        raise unknown_architecture(spec.student.architecture, [PRUNED_TEACHER, *ARCHITECTURES])


def _field_errors(found: Sequence[ErrorDetails], document: dict[str, Any], model: type[BaseModel]) -> list[FieldError]:
    """Return the errors of pydantic as JSON pointers with details."""
    errors: list[FieldError] = []
    for entry in found:
        error = FieldError(pointer(entry["loc"], document), explained(entry, model))
        if error not in errors and not _follows_from_a_wrong_name(entry):
            errors.append(error)
        if len(errors) == MAX_ERRORS:
            break
    return errors


def _follows_from_a_wrong_name(entry: ErrorDetails) -> bool:
    """True for errors in the options of an unknown method or memory: the name itself is reported already."""
    if entry["type"] in _UNION_ERRORS:
        return entry["loc"][-1] in _TAGGED
    return entry["type"] == "literal_error" and entry["loc"][-1] == "name" and len(entry["loc"]) > 2


def pointer(location: Sequence[str | int], document: Any) -> str:
    """Return the JSON pointer for a pydantic location, without the union tags that pydantic puts between the keys."""
    path, node = "", document
    for depth, step in enumerate(location):
        if depth and location[depth - 1] in _TAGGED and isinstance(step, str) and depth == 2:
            continue  # the tag that chose the options class
        if isinstance(node, dict):
            if step not in node and depth + 1 < len(location):
                continue
            path, node = child_pointer(path, step), node.get(str(step))
        elif isinstance(node, list) and isinstance(step, int):
            path, node = child_pointer(path, step), node[step] if step < len(node) else None
        else:
            break
    return path
