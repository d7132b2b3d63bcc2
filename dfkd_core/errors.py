"""The exceptions of the science, and `CodedError`, on which the exceptions of all rooms are built (torch-free).

An error is described once, on its class: `code` is permanent and what clients see, `title` names the kind, `status` is
the HTTP status (None: the error never answers a request, it is found in `job.error`), and the docstring says when the
error happens. A class that sets `code` alone shares the description of the class that sets `title` too.
`service.problems.table` and the table in docs/api.md are read from these classes.
"""

from collections.abc import Sequence


class CodedError(Exception):
    """The service has a fault; `request_id` finds it in the log. In `job.error`: the runner failed unexpectedly."""

    code: str = "internal"
    title: str = "Internal error"
    status: int | None = 500


class DfkdError(CodedError):
    """An error that the user or the operator can act on: `detail` says what happened, `hint` what to do."""

    def __init__(self, detail: str, *, hint: str | None = None, pointer: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.pointer = pointer  # JSON pointer to the field of the spec that caused the error, if one field did


class TeacherError(DfkdError):
    """The uploaded model cannot serve as a teacher; its subclasses say why."""


class FormatUnsupported(TeacherError):
    """The file's content has a format that is not read (pickle, TorchScript, .pt2, Keras, …); the hint says how to
    convert it.
    """

    code, title, status = "format-unsupported", "Teacher format not supported", 415


class TeacherInvalid(TeacherError):
    """The file has the right format, but is empty, broken, too complex or beyond the limits of the inspection."""

    code, title, status = "teacher-invalid", "Teacher cannot be read", 422


class OperatorUnsupported(TeacherError):
    """The ONNX graph uses operators that the importer does not read; `nodes` lists each such node."""

    code, title, status = "teacher-op-unsupported", "Teacher uses unsupported operators", 422

    def __init__(self, detail: str, *, nodes: Sequence[str], hint: str | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.nodes = list(nodes)  # "name: OpType — reason", one for each node refused


class TeacherMismatch(TeacherError):
    """File, architecture, input shape or classes do not belong together."""

    code, title, status = "teacher-mismatch", "Teacher and spec disagree", 422


class ParityError(TeacherError):
    """The imported network and ONNX Runtime disagree about the teacher's outputs."""

    code, title, status = "teacher-parity", "Teacher misread", None


class NotDifferentiable(TeacherError):
    """No useful gradient reaches the teacher's input."""

    code, title, status = "teacher-not-differentiable", "Teacher gives no gradient", None


class ConstantTeacher(TeacherError):
    """The teacher returns the same logits for every image: it is untrained, or its images have another range."""

    code, title, status = "teacher-constant", "Teacher ignores its images", None


class StudentError(DfkdError):
    """The student's architecture is unknown, or cannot take this input."""

    code, title, status = "student-infeasible", "Student cannot be built", 422


class StudentNotSmaller(StudentError):
    """The student has at least as many parameters as its teacher."""

    code, title, status = "student-not-smaller", "Student not smaller", 422


class RequirementError(DfkdError):
    """The method or memory needs something that this teacher, or the other one of the two, does not offer."""

    code, title, status = "requirement-unmet", "Requirement not met", 422


class CompileUnavailable(DfkdError):
    """`compute.compile` is on, and the worker's host cannot compile; the hint says what it lacks."""

    code, title, status = "compile-unavailable", "Cannot compile", None


class DistillationDiverged(DfkdError):
    """A loss or a weight became NaN or infinite, and going back did not help."""

    code, title, status = "distillation-diverged", "Distillation diverged", None


class GeneratorCollapsed(DfkdError):
    """The synthesizer produces only one image, and going back did not help."""

    code, title, status = "generator-collapsed", "Generator collapsed", None


class AgreementBelowTarget(DfkdError):
    """The student misses `accept.agreement.min`, and `on_miss` says fail."""

    code, title, status = "agreement-below-target", "Agreement below target", None


class ExportMismatch(DfkdError):
    """ONNX Runtime and PyTorch disagree about the exported student."""

    code, title, status = "export-mismatch", "Export mismatch", None


class TimeLimit(DfkdError):
    """`budget.max_seconds` was over before any student was published, or the job ran longer than is allowed."""

    code, title, status = "time-limit", "Time limit", None

    @staticmethod
    def before_a_student(max_seconds: float) -> "TimeLimit":
        """Return the error of a job that has nothing to deliver when its seconds are over."""
        return TimeLimit(
            f"the {max_seconds:g} seconds of distillation.budget.max_seconds were over before there was a student to "
            "deliver",
            hint="raise distillation.budget.max_seconds, or lower distillation.budget.steps",
            pointer="/distillation/budget/max_seconds",
        )


class CheckpointMismatch(DfkdError):
    """The checkpoint was written by another spec, build or thread count."""

    code, title, status = "checkpoint-mismatch", "Checkpoint of another run", None


class SandboxUnavailable(DfkdError):
    """This host offers no sandbox to read a teacher in, so no teacher is read."""

    code, title, status = "sandbox-unavailable", "No sandbox", 503

    def __init__(self, reasons: Sequence[str] = ()) -> None:
        super().__init__(
            "no sandbox works on this host, so no teacher is read",
            hint="Its operator finds in docs/operations.md, under The sandbox, what one needs.",
        )
        self.reasons = list(reasons)  # what this host lacks; only its operator is told


class Stopped(DfkdError):
    """The run was asked to stop and has written its checkpoint. The error never leaves the worker."""

    code = "stopped"
