"""What `student.architecture: "teacher"` gives for an inspected teacher, before any job (torch-free, pure Python)."""

import math
from collections import Counter
from dataclasses import dataclass, replace

from dfkd_core.errors import StudentError, StudentNotSmaller
from dfkd_core.inspection.inspection import Inspection
from dfkd_core.narrowing.figures import Figures, Narrowing, figures_at, width_for
from dfkd_core.notice import Notice
from dfkd_core.spec.config import StudentSpec

SHOWN_WIDTHS = (0.5, 0.25)
LEAST = 0.02  # a copy of width w that loses less than this share of 1 - w is refused: at width 0.5 less than 1 %
LITTLE = 0.5  # with less than this share of 1 - w, a notice says so: at width 0.5 less than 25 %
CATALOGUE = "Choose an architecture of the catalogue: `dfkd students`, GET /menu."


@dataclass(frozen=True, slots=True)
class NarrowedTeacher:
    """The narrowed copy of a teacher."""

    figures: Figures
    removed: float  # the share of the teacher's parameters that the copy does not have
    notice: Notice | None = None  # says so where little is removed


@dataclass(frozen=True, slots=True)
class NarrowedSize:
    """The cost of the copy of one width. The API describes these fields in `dfkd.wire.teacher`."""

    width: float
    parameters: int
    macs: int
    activation_bytes: int
    weight_bytes: int
    removed: float


@dataclass(frozen=True, slots=True)
class NarrowedSizes:
    """What narrowing can do with a teacher. The API describes these fields in `dfkd.wire.teacher`."""

    possible: bool
    because: str | None  # why nothing, or not more, can be removed
    sizes: list[NarrowedSize]


@dataclass(frozen=True, slots=True)
class _Teacher:
    """A teacher that may be narrowed. Its file may store fewer parameters than its graph computes with."""

    narrowing: Narrowing
    stored: int  # learned parameters of the file

    @property
    def possible(self) -> bool:
        """Whether any copy is smaller than the file."""
        return self.least < self.stored

    @property
    def least(self) -> int:
        """Parameters of the narrowest copy."""
        return figures_at(self.narrowing, 0.0).parameters

    def copy(self, width: float) -> NarrowedTeacher:
        """Return the copy of a width."""
        figures = figures_at(self.narrowing, width)
        return NarrowedTeacher(figures, removed=1 - figures.parameters / self.stored)

    def is_little(self, copy: NarrowedTeacher) -> bool:
        """Whether much less is removed than the width of a copy asks for."""
        return copy.removed < LITTLE * (1 - copy.figures.width)

    def because(self) -> str:
        """Say why the copy cannot be smaller: the most frequent reasons why layers keep their channels."""
        layers = self.narrowing.layers
        kept = [layer.because for layer in layers if layer.because is not None]
        found = []
        if (computed := figures_at(self.narrowing, 1.0).parameters) > self.stored:
            found.append(
                f"the graph computes with {computed:,} numbers and the file stores {self.stored:,} of them, "
                "because layers share weights or weights are computed; a copy has weights of its own everywhere"
            )
        if not layers:
            found.append("no layer of it has weights")
        elif len(kept) > 1 or len(layers) == 1:  # one of them is the last, which keeps its channels in every network
            reasons = "; ".join(f"{count} because {because}" for because, count in Counter(kept).most_common(2))
            found.append(f"{len(kept)} of its {len(layers)} layers keep all channels, {reasons}")
        return "; ".join(found) or "its groups of channels are too small for this width"


def describe_narrowed(inspection: Inspection, student: StudentSpec) -> NarrowedTeacher | None:
    """Return the copy that a spec asks for; None if the inspection does not know the teacher's graph.

    Raises:
        StudentError: no channel can be removed, or almost none, or not as many as `student.params` asks for.
        StudentNotSmaller: the copy of this width has as many parameters as the teacher's file, or more.
    """
    if inspection.narrowing is None:
        return None
    teacher = _Teacher(inspection.narrowing, inspection.parameters)
    if not teacher.possible:
        raise StudentError(
            f"the teacher's graph cannot be narrowed: {teacher.because()}",
            hint=CATALOGUE,
            pointer="/student/architecture",
        )
    limit = student.parameter_limit(inspection.parameters)
    if limit is not None:
        return teacher.copy(width_for(inspection.narrowing, limit))
    return _judged(teacher, teacher.copy(student.width))


def _judged(teacher: _Teacher, copy: NarrowedTeacher) -> NarrowedTeacher:
    """The copy with a notice if its width removes little.

    Raises:
        StudentError: it removes almost nothing.
        StudentNotSmaller: it removes nothing.
    """
    if not teacher.is_little(copy):
        return copy
    width, why = copy.figures.width, teacher.because()
    hint = f"The narrowest copy has {teacher.least:,} parameters. For a smaller student: {CATALOGUE[0].lower()}"
    hint += CATALOGUE[1:]
    if copy.removed <= 0:
        widest = width_for(teacher.narrowing, teacher.stored - 1)
        raise StudentNotSmaller(
            f"a copy of width {width:g} has {copy.figures.parameters:,} parameters, the teacher {teacher.stored:,}: "
            f"{why}",
            hint=f"Widths up to {math.floor(1000 * widest) / 1000:g} give a smaller copy. {hint}",
            pointer="/student/width",
        )
    found = (
        f"width {width:g} removes {copy.removed:.1%} of the teacher's parameters "
        f"({teacher.stored:,} to {copy.figures.parameters:,})"
    )
    if copy.removed < LEAST * (1 - width):
        raise StudentError(f"{found}: {why}", hint=hint, pointer="/student/width")
    notice = Notice(code="student-partly-narrowed", detail=f"{found[0].upper()}{found[1:]}, because {why}.", hint=hint)
    return replace(copy, notice=notice)


def narrowed_sizes(inspection: Inspection) -> NarrowedSizes | None:
    """Return what narrowing can do with a teacher; None if the inspection does not know its graph."""
    if inspection.narrowing is None:
        return None
    teacher = _Teacher(inspection.narrowing, inspection.parameters)
    copies = [teacher.copy(width) for width in SHOWN_WIDTHS] if teacher.possible else []
    is_explained = not copies or teacher.is_little(copies[0])
    return NarrowedSizes(
        possible=teacher.possible,
        because=teacher.because() if is_explained else None,
        sizes=[_size(copy) for copy in copies if copy.removed > 0],
    )


def _size(copy: NarrowedTeacher) -> NarrowedSize:
    figures = copy.figures
    return NarrowedSize(
        width=figures.width,
        parameters=figures.parameters,
        macs=figures.macs,
        activation_bytes=figures.activation_bytes,
        weight_bytes=figures.weight_bytes,
        removed=round(copy.removed, 4),
    )
