"""What `student.architecture: "teacher"` gives for an inspected teacher, before any job (torch-free, pure Python)."""

from collections import Counter
from dataclasses import dataclass, field

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
    teacher: Figures
    kept: list[tuple[str, str]] = field(default_factory=list)  # layers that keep all channels, each with the reason
    notice: Notice | None = None  # says so where little is removed

    @property
    def removed(self) -> float:
        """The share of the teacher's parameters that the copy does not have."""
        return 1 - self.figures.parameters / self.teacher.parameters


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


def describe_narrowed(inspection: Inspection, student: StudentSpec) -> NarrowedTeacher | None:
    """Return the copy that a spec asks for; None if the inspection does not know the teacher's graph.

    Raises:
        StudentError: no channel can be removed, or almost none, or not as many as `student.params` asks for.
        StudentNotSmaller: the width removes nothing.
    """
    narrowing = inspection.narrowing
    if narrowing is None:
        return None
    teacher, kept = figures_at(narrowing, 1.0), _kept(narrowing)
    if figures_at(narrowing, 0.0).parameters >= teacher.parameters:
        raise StudentError(
            f"no channel of the teacher's graph can be removed: {_because(narrowing, kept)}",
            hint=CATALOGUE,
            pointer="/student/architecture",
        )
    limit = student.parameter_limit(inspection.parameters)
    width = student.width if limit is None else width_for(narrowing, limit)
    copy = NarrowedTeacher(figures_at(narrowing, width), teacher, kept)
    if limit is None:
        copy = _judged(narrowing, copy)
    return copy


def _judged(narrowing: Narrowing, copy: NarrowedTeacher) -> NarrowedTeacher:
    """The copy with a notice if its width removes little."""
    width, asked = copy.figures.width, 1 - copy.figures.width
    share = copy.removed / asked
    if share >= LITTLE:
        return copy
    found = (
        f"width {width:g} removes {copy.removed:.1%} of the teacher's parameters "
        f"({copy.teacher.parameters:,} to {copy.figures.parameters:,})"
    )
    why = _because(narrowing, copy.kept)
    least = figures_at(narrowing, 0.0).parameters
    hint = f"The narrowest copy has {least:,} parameters. For a smaller student: {CATALOGUE[0].lower()}{CATALOGUE[1:]}"
    if copy.figures.parameters >= copy.teacher.parameters:
        raise StudentNotSmaller(f"width {width:g} removes no channel: {why}", hint=hint, pointer="/student/width")
    if share < LEAST:
        raise StudentError(f"{found}: {why}", hint=hint, pointer="/student/width")
    return NarrowedTeacher(
        copy.figures,
        copy.teacher,
        copy.kept,
        Notice(code="student-partly-narrowed", detail=f"{found[0].upper()}{found[1:]}, because {why}.", hint=hint),
    )


def narrowed_sizes(inspection: Inspection) -> NarrowedSizes | None:
    """Return what narrowing can do with a teacher; None if the inspection does not know its graph."""
    narrowing = inspection.narrowing
    if narrowing is None:
        return None
    teacher = figures_at(narrowing, 1.0)
    possible = figures_at(narrowing, 0.0).parameters < teacher.parameters
    sizes = [_size(figures_at(narrowing, width), teacher) for width in SHOWN_WIDTHS] if possible else []
    little = possible and sizes[0].removed < LITTLE * (1 - SHOWN_WIDTHS[0])
    because = _because(narrowing, _kept(narrowing)) if little or not possible else None
    return NarrowedSizes(possible, because, sizes)


def _size(figures: Figures, teacher: Figures) -> NarrowedSize:
    return NarrowedSize(
        width=figures.width,
        parameters=figures.parameters,
        macs=figures.macs,
        activation_bytes=figures.activation_bytes,
        weight_bytes=figures.weight_bytes,
        removed=round(1 - figures.parameters / teacher.parameters, 4),
    )


def _kept(narrowing: Narrowing) -> list[tuple[str, str]]:
    return [(layer.name, layer.because) for layer in narrowing.layers if layer.because is not None]


def _because(narrowing: Narrowing, kept: list[tuple[str, str]]) -> str:
    """Why layers keep their channels: the most frequent reasons."""
    counts = Counter(because for _, because in kept)
    if not narrowing.layers:
        return "no layer of it has weights"
    if not counts:
        return "its groups of channels are too small for this width"
    reasons = "; ".join(f"{count} because {because}" for because, count in counts.most_common(2))
    return f"{len(kept)} of its {len(narrowing.layers)} layers keep all channels, {reasons}"
