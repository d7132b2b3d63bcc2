"""What can be asked for: the spec, methods, memories, and students sized for one input."""

from pydantic import Field

from dfkd.wire.model import Answer, Json, Request


class MenuQuery(Request):
    """The input that the students are sized for."""

    channels: int = Field(3, ge=1, le=4096, description="Channels of the teacher's input.")
    height: int = Field(32, ge=1, le=4096, description="Its height.")
    width: int = Field(32, ge=1, le=4096, description="Its width.")
    num_classes: int = Field(10, ge=2, le=100_000, description="Classes of the teacher.")
    student_width: float = Field(1.0, gt=0, le=16, allow_inf_nan=False, description="Width multiplier of the students.")


class StudentsFor(Answer):
    """The input for which the students of the menu are sized."""

    channels: int
    height: int
    width: int
    num_classes: int
    student_width: float


class StudentView(Answer):
    """One architecture, sized for an input."""

    name: str = Field(description="Value for `student.architecture`.")
    family: str
    paper: str
    form: str = Field(description="Which of the published variants this is.")
    options: Json = Field(description="JSON Schema of the family's own options, by name.")
    parameters: int | None = Field(None, description="Number of trained values; null where refused.")
    macs: int | None = Field(None, description="Multiply-adds for one image; null where refused.")
    refused: str | None = Field(None, description="Why it cannot take this input.")


class Menu(Answer):
    """Everything that can be asked for."""

    spec: Json = Field(description="JSON Schema of the spec, self-contained.")
    methods: Json = Field(description="JSON Schema of each method's options, by name.")
    memories: Json = Field(description="JSON Schema of each memory's options, by name.")
    student: Json = Field(description="JSON Schema of `student`.")
    students_for: StudentsFor
    students: list[StudentView] = Field(description="The catalogue.")
