"""One export in a process of its own: a request as JSON on standard input, the outcome as JSON on standard output.

Whatever the code that it runs prints goes to standard error.
"""

import json
import os
import sys
import traceback
from typing import Any

from dfkd_core.errors import DfkdError
from dfkd_core.exporting.request import ExportRequest

OURS = ("torch", "onnx", "onnxruntime", "onnxscript", "safetensors", "numpy")


def main() -> int:
    """Do the request; the exit status is 1 where that failed, and the outcome says how."""
    request = ExportRequest.model_validate_json(sys.stdin.read())
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as outcome:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        found = _outcome(request)
        json.dump(found, outcome)
    return 0 if "exported" in found else 1


def _outcome(request: ExportRequest) -> dict[str, Any]:
    try:
        from dfkd_core.exporting.teacher import export_teacher
    except ModuleNotFoundError as error:
        if error.name not in OURS:
            raise
        return {"missing": error.name}
    try:
        return {"exported": export_teacher(request).model_dump(mode="json")}
    except DfkdError as error:
        told = {"code": error.code, "detail": error.detail, "hint": error.hint}
        return {"error": told | {"nodes": getattr(error, "nodes", [])}}
    except Exception as error:  # of the code that was run, whose author is the one who reads this
        traceback.print_exc()
        return {"error": {"code": "export-failed", "detail": f"{type(error).__name__}: {error}", "hint": None}}


if __name__ == "__main__":
    sys.exit(main())
