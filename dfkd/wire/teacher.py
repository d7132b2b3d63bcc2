"""An uploaded teacher, and the methods that can use it."""

from datetime import datetime

from pydantic import Field

from dfkd.wire.model import Answer, Json


class UnservedMethod(Answer):
    """A method that would be refused for this teacher."""

    name: str = Field(description="Name of the method.")
    needs: list[str] = Field(description="What the method needs and the teacher does not offer.")
    because: str = Field(description="Why the teacher does not offer it.")


class AutoChoice(Answer):
    """The method that `method: auto` would choose."""

    method: str = Field(description="The method.")
    fallback: str = Field(description="The method that takes over if the first one fails.")
    because: str = Field(description="Why this method was chosen.")


class Suitability(Answer):
    """Which methods can use a teacher."""

    served: list[str] = Field(description="Methods that can use this teacher.")
    unserved: list[UnservedMethod] = Field(description="Methods that cannot.")
    auto: AutoChoice


class NarrowedSize(Answer):
    """The teacher's own graph with fewer channels, at one width."""

    width: float = Field(description="`student.width`: multiplies every hidden number of channels.")
    parameters: int = Field(description="Learned numbers.")
    macs: int = Field(description="Multiply-adds of convolutions and matrix products for one image.")
    activation_bytes: int = Field(description="Float32 bytes of all that is computed for one image.")
    weight_bytes: int = Field(description="Float32 bytes of the weights and running statistics.")
    removed: float = Field(description="Share of the teacher's parameters that the copy does not have.")


class NarrowedSizes(Answer):
    """What `student.architecture: "teacher"` can do with a teacher."""

    possible: bool = Field(description="Whether any channel can be removed.")
    because: str | None = Field(None, description="Why nothing, or only little, can be removed.")
    sizes: list[NarrowedSize] = Field(description="The copies of some widths; a job may ask for any width.")


class TeacherView(Answer):
    """An uploaded teacher: immutable, known by the digest of its bytes."""

    id: str = Field(description="sha256 of the file.")
    bytes: int = Field(description="Size.")
    format: str = Field(description="onnx or safetensors, found from the content.")
    created_at: datetime = Field(description="When it was first uploaded.")
    inspection: Json = Field(description="What the structural inspection found.")
    spec: Json | None = Field(
        None,
        description="What was said of it with its upload, as the `teacher` of a job's spec; jobs that name the teacher "
        "by its id need not repeat it. Null where nothing was said.",
    )
    methods: Suitability | None = Field(
        None, description="Methods that can use this teacher, methods that cannot and why, and the choice of auto."
    )
    narrowed: NarrowedSizes | None = Field(
        None, description="The teacher's own graph with fewer channels; null where the graph is not known yet."
    )
    depth: Json | None = Field(
        None,
        description="Result of running the teacher in its newest job: passed, and measured (parity with ONNX Runtime, "
        "gradient, dead inputs, logits or log-probabilities) or code, detail and hint; null before the first job.",
    )
