"""One export in a process of its own: a request as JSON on standard input, the answer as JSON on standard output.

Everything that the network's code prints goes to standard error.
"""

import json
import os
import sys
import traceback
from typing import Any

from dfkd_core.errors import DfkdError
from dfkd_core.exporting.request import ExportRequest

_REQUIREMENTS = ("torch", "onnx", "onnxruntime", "onnxscript", "safetensors", "numpy")


def main() -> int:
    """Serve the request. Return exit status 1 if the export failed; the answer says how."""
    request = ExportRequest.model_validate_json(sys.stdin.read())
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as output:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        answer = _answer(request)
        json.dump(answer, output)
    return 0 if "exported" in answer else 1


def _answer(request: ExportRequest) -> dict[str, Any]:
    try:
        from dfkd_core.exporting.teacher import export_teacher
    except ModuleNotFoundError as error:
        if error.name not in _REQUIREMENTS:
            raise
        return {"missing": error.name}
    try:
        return {"exported": export_teacher(request).model_dump(mode="json")}
    except DfkdError as error:
        if getattr(error.__cause__, "__notes__", None):  # what an exporter said before it failed
            traceback.print_exception(error.__cause__)
        fields = {"code": error.code, "detail": error.detail, "hint": error.hint}
        return {"error": fields | {"nodes": getattr(error, "nodes", [])}}
    except Exception as error:  # an error of the network's code, whose author reads this traceback
        traceback.print_exc()
        return {"error": {"code": "export-failed", "detail": f"{type(error).__name__}: {error}", "hint": None}}


if __name__ == "__main__":
    sys.exit(main())
