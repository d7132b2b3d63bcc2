"""What a caller said of a teacher with its upload, which holds for later jobs that name the teacher by its id."""

from typing import Any

from dfkd_core.options.field_types import Frozen
from dfkd_core.options.published import merged
from dfkd_core.spec.teacher import TeacherSpec
from jobs.models import SAID, JobSpec, TeacherRef
from service.intake.spec_parsing import validate
from service.intake.strict_json import read_json_object

Sayings = dict[str, Any]  # Any: JSON


class UploadSpec(Frozen):
    """What is said of a teacher with its upload: the `teacher` of a job's spec."""

    teacher: TeacherSpec = TeacherSpec()


def read_upload_spec(text: bytes, *, max_bytes: int) -> TeacherSpec:
    """Return the `spec` part of POST /teachers.

    Raises:
        ValidationFailed: it is not valid.
    """
    return validate(UploadSpec, read_json_object(text, max_bytes=max_bytes)).teacher


def sayings(said: TeacherSpec) -> Sayings:
    """Return the fields that the caller has set, as they are stored with the teacher."""
    return said.model_dump(mode="json", exclude_unset=True)


def over_said(spec: JobSpec, teacher: TeacherRef) -> JobSpec:
    """Return the spec of a job with what the upload of its teacher said; the fields that the job sets itself win.

    Raises:
        ValidationFailed: the two contradict each other.
    """
    before = teacher.inspection.get(SAID)
    if not before:
        return spec
    both = validate(UploadSpec, {"teacher": merged(before, sayings(spec.teacher))})
    return spec.model_copy(update={"teacher": both.teacher})
