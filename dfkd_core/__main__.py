"""`python -m dfkd_core TEACHER -o student.onnx` distils a student without the service.

Exit status: 0 the student was delivered, 1 the job failed, 2 the command or the spec is wrong, 130 interrupted.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dfkd_core.errors import DfkdError
from dfkd_core.extras import require_or_exit
from dfkd_core.progress import Update
from dfkd_core.sandbox.process_tuning import ensure_tuned
from dfkd_core.spec import overrides
from dfkd_core.spec.config import DistillSpec
from dfkd_core.spec.explanation import explained
from dfkd_core.spec.wording import for_command_line

if TYPE_CHECKING:
    from dfkd_core.pipeline import Compressed

OPTIONS = {"student.architecture": "--student"}  # fields of the spec that have an option here


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, distil, and write the student, its weights and its report into one folder."""
    options = _parser().parse_args(arguments)
    require_or_exit("worker", program="python -m dfkd_core")
    ensure_tuned(threads=options.threads)
    try:
        deliver(options.teacher, _spec(options), options.output, threads=options.threads, device=options.device)
    except ValidationError as error:
        return _complain(
            *(f"/{_pointer(one['loc'])}: {explained(one, DistillSpec)}" for one in error.errors(include_url=False)),
            status=2,
        )
    except overrides.BadOption as error:
        return _complain(str(error), status=2)
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}", status=2)
    except DfkdError as error:
        return _complain(
            f"{error.code}: {error.detail}",
            *([f"hint: {for_command_line(error.hint, OPTIONS)}"] if error.hint else []),
            status=1,
        )
    except KeyboardInterrupt:
        return _complain("interrupted", status=130)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dfkd_core", description="Distil a small ONNX student from a trained teacher without any data."
    )
    parser.add_argument("teacher", type=Path, help="ONNX, or safetensors of a named architecture")
    parser.add_argument("-o", "--output", type=Path, default=Path("student.onnx"), help="where the student goes")
    parser.add_argument("--student", help="its architecture: a name of the catalogue")
    parser.add_argument("--spec", type=Path, help="JSON file with the spec, as POST /jobs takes it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted path into the spec")
    parser.add_argument("--threads", type=int, default=2, help="intra-op threads; equal threads, equal bytes")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def _spec(options: argparse.Namespace) -> DistillSpec:
    document = overrides.read_spec_file(options.spec) if options.spec else {}
    if options.student:
        overrides.put(document, "student.architecture", options.student)
    overrides.apply(document, options.set)
    return DistillSpec.model_validate(document)


def _pointer(location: tuple[int | str, ...]) -> str:
    """Return a location as a path in the spec. pydantic inserts the name of the method or memory; it is left out."""
    tag = 2 if location[:2] in (("distillation", "method_options"), ("distillation", "memory_options")) else None
    return "/".join(str(part) for depth, part in enumerate(location) if depth != tag)


def _complain(*lines: str, status: int) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return status


def deliver(teacher: Path, spec: DistillSpec, output: Path, *, threads: int, device: str) -> "Compressed":
    """Distil in a temporary directory and move the files beside `output`. A failure leaves no files."""
    from dfkd_core.pipeline import REPORT, SAMPLES, STUDENT_ONNX, STUDENT_WEIGHTS, compress

    targets = {
        STUDENT_ONNX: output,
        STUDENT_WEIGHTS: output.with_suffix(".safetensors"),
        REPORT: output.with_suffix(".report.json"),
        SAMPLES: output.with_suffix(".samples.png"),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".dfkd-", dir=output.parent) as scratch:
        outcome = compress(teacher, spec, workspace=Path(scratch), threads=threads, device=device, on_step=_Progress())
        for name, path in outcome.artifacts.items():
            shutil.move(path, targets[name])
    report = outcome.report
    print(f"{output}: agreement {report.agreement.value:.4f} on {report.agreement.n} audit images")
    for warning in report.warnings:
        print(f"warning {warning.code}: {warning.detail}")
    return outcome


class _Progress:
    """Prints one line on standard error for every per cent and stage."""

    def __init__(self) -> None:
        self._last = (-1, "")

    def __call__(self, update: Update) -> bool:
        now = (int(100 * update.fraction), update.stage)
        if now != self._last:
            self._last = now
            agreement = "" if update.agreement is None else f"  agreement {update.agreement:.4f}"
            print(f"{now[0]:3d} %  {update.stage}{agreement}", file=sys.stderr, flush=True)
        return False


if __name__ == "__main__":
    sys.exit(main())
