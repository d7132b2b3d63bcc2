"""`python -m dfkd_core.teachers`: load and verify one teacher.

Request, as JSON on standard input: {"path", "spec"}, where `spec` is the `teacher` of a job's spec. Answer, as JSON on
standard output: {"measured": …} or {"error": {"code", "detail", "hint"}}.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from dfkd_core.errors import DfkdError
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import verification_facts, verify_teacher

SEED = 0


def examine(path: Path, spec: TeacherSpec) -> dict[str, Any]:
    """Load and verify a teacher. Return the measurements, or the reason why the file cannot serve as a teacher."""
    try:
        teacher = load_teacher(path, spec)
        found = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(SEED))
    except DfkdError as error:
        return {"error": {"code": error.code, "detail": error.detail, "hint": error.hint}}
    return {"measured": verification_facts(found).model_dump(mode="json")}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(examine(Path(request["path"]), TeacherSpec.model_validate(request["spec"]))))
