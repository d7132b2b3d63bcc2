"""The science's exceptions (torch-free). Each class has a stable `code`: it is what clients see and never changes.

DfkdError
├── TeacherError               the uploaded model cannot serve as a teacher
│   ├── FormatUnsupported      not a format we read (pickles, TorchScript, .pt2, Keras, archives, ...)
│   ├── TeacherInvalid         the right format, but broken
│   ├── OperatorUnsupported    ONNX nodes outside the importer's whitelist, listed
│   ├── TeacherMismatch        teacher, architecture, input shape or classes do not belong together
│   ├── ParityError            our reading of the teacher differs from ONNX Runtime's
│   └── NotDifferentiable      no useful gradient reaches the teacher's input
├── StudentError               this student cannot be built for this teacher
│   └── StudentNotSmaller      it has at least as many parameters as its teacher
├── RequirementError           method or memory needs what the teacher or the other one does not offer
├── CompileUnavailable         the spec wants compiled networks, and this host cannot compile
├── DistillationDiverged       loss or weights became NaN or infinite
├── GeneratorCollapsed         the synthesizer produces one image only, and roll-back did not help
├── AgreementBelowTarget       the published student misses `accept.agreement.min` and `on_miss` says fail
├── ExportMismatch             ONNX Runtime and PyTorch disagree about the exported student
├── CheckpointMismatch         a checkpoint of another spec, build or thread count
├── SandboxUnavailable         this host makes no sandbox to read a stranger's file in
└── Stopped                    on_step asked for a stop; the state is in the checkpoint named
"""

from collections.abc import Sequence


class DfkdError(Exception):
    """Something the user or the operator can act on: `detail` says what, `hint` says what to do."""

    code = "internal"

    def __init__(self, detail: str, *, hint: str | None = None, pointer: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.pointer = pointer  # JSON pointer into the spec, where one field is to blame


class TeacherError(DfkdError):
    """The uploaded model cannot serve as a teacher."""

    code = "teacher-invalid"


class FormatUnsupported(TeacherError):
    """Not a format that we read."""

    code = "format-unsupported"


class TeacherInvalid(TeacherError):
    """The right format, but broken."""


class OperatorUnsupported(TeacherError):
    """ONNX nodes outside the importer's whitelist."""

    code = "teacher-op-unsupported"

    def __init__(self, detail: str, *, nodes: Sequence[str], hint: str | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.nodes = list(nodes)  # "name: OpType — reason", one for each node refused


class TeacherMismatch(TeacherError):
    """Teacher, architecture, input shape or number of classes do not belong together."""

    code = "teacher-mismatch"


class ParityError(TeacherError):
    """Our reading of the teacher differs from ONNX Runtime's."""

    code = "teacher-parity"


class NotDifferentiable(TeacherError):
    """No useful gradient reaches the teacher's input."""

    code = "teacher-not-differentiable"


class StudentError(DfkdError):
    """This student cannot be built for this teacher."""

    code = "student-infeasible"


class StudentNotSmaller(StudentError):
    """The student has at least as many parameters as its teacher."""

    code = "student-not-smaller"


class RequirementError(DfkdError):
    """Method or memory needs what the teacher, or the other one, does not offer."""

    code = "requirement-unmet"


class CompileUnavailable(DfkdError):
    """The spec wants compiled networks, and this host cannot compile them."""

    code = "compile-unavailable"


class DistillationDiverged(DfkdError):
    """Loss or weights became NaN or infinite."""

    code = "distillation-diverged"


class GeneratorCollapsed(DfkdError):
    """The synthesizer produces one image only, and roll-back did not help."""

    code = "generator-collapsed"


class AgreementBelowTarget(DfkdError):
    """The published student misses the agreement that the spec demands."""

    code = "agreement-below-target"


class ExportMismatch(DfkdError):
    """ONNX Runtime and PyTorch disagree about the exported student."""

    code = "export-mismatch"


class CheckpointMismatch(DfkdError):
    """A checkpoint of another spec, build or thread count."""

    code = "checkpoint-mismatch"


class SandboxUnavailable(DfkdError):
    """This host makes no sandbox of the kind that was asked for, and without one no stranger's file is read."""

    code = "sandbox-unavailable"

    def __init__(self, reasons: Sequence[str] = ()) -> None:
        super().__init__(
            "no sandbox works on this host, so no teacher is read",
            hint="Its operator finds in docs/operations.md, under The sandbox, what one needs.",
        )
        self.reasons = list(reasons)  # of this host: for its operator alone


class Stopped(DfkdError):
    """The run was asked to stop and wrote its checkpoint first."""

    code = "stopped"
