"""`python -m dfkd_core.inspection`: the child process that inspects one file in its sandbox.

The process reads its request as JSON from standard input: {"path", "spec", "memory_bytes"}. It writes its answer as
JSON to standard output: {"inspection": …}, {"error": {"class", "detail", "hint", "pointer", "nodes"}}, or {"fault":
name of an unexpected exception}.
"""

import json
import sys
from pathlib import Path
from typing import Any

from dfkd_core.errors import DfkdError, TeacherInvalid
from dfkd_core.inspection.formats.detection import TeacherFormat, sniff_file
from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
from dfkd_core.spec.teacher import TeacherSpec

ONNX_COPIES = 5  # number of copies of a large ONNX file in memory during its inspection, the file mapping included


def _check_size(path: Path, memory_bytes: int) -> None:
    """Refuse an ONNX file that needs too much memory; safetensors files are read tensor by tensor.

    Raises:
        TeacherInvalid: ONNX_COPIES copies of the file do not fit into `memory_bytes`.
    """
    found = sniff_file(path)
    most = memory_bytes // ONNX_COPIES
    if found is TeacherFormat.ONNX and path.stat().st_size > most:
        raise TeacherInvalid(
            "the teacher is too large to be inspected", hint=f"ONNX files of up to {most // 2**20} MiB are taken here."
        )


def answer() -> dict[str, Any]:
    """Read the request, inspect the file, and return the answer."""
    request = json.load(sys.stdin)
    path = Path(request["path"])
    try:
        spec = TeacherSpec.model_validate(request["spec"])
        _check_size(path, int(request["memory_bytes"]))
        return {"inspection": inspect_with_input_space(path, spec)[0].model_dump(mode="json")}
    except DfkdError as error:
        refusal = {"class": type(error).__name__, "detail": error.detail, "hint": error.hint, "pointer": error.pointer}
        return {"error": refusal | {"nodes": getattr(error, "nodes", [])}}
    except Exception as error:  # a library may raise anything for a bad file; the parent logs it and refuses the file
        return {"fault": type(error).__name__}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer()))
