"""An uploaded teacher, and the methods that can use it."""

from datetime import datetime

from pydantic import Field

from dfkd.wire.model import Answer, Json


class UnservedMethod(Answer):
    """A method that would be refused for this teacher."""

    name: str = Field(description="Name of the method.")
    needs: list[str] = Field(description="What it needs and the teacher does not offer.")
    because: str = Field(description="Why the teacher does not.")


class AutoChoice(Answer):
    """What `method: auto` becomes."""

    method: str = Field(description="The method.")
    fallback: str = Field(description="The one that takes over if it fails.")
    because: str = Field(description="Why this one.")


class Suitability(Answer):
    """What can be done with a teacher."""

    served: list[str] = Field(description="Methods that can use this teacher.")
    unserved: list[UnservedMethod] = Field(description="Methods that cannot.")
    auto: AutoChoice


class TeacherView(Answer):
    """An uploaded teacher: immutable, known by the digest of its bytes."""

    id: str = Field(description="sha256 of the file.")
    bytes: int = Field(description="Size.")
    format: str = Field(description="onnx or safetensors, told from the content.")
    created_at: datetime = Field(description="When it was first uploaded.")
    inspection: Json = Field(description="What the structural inspection found.")
    methods: Suitability | None = Field(
        None, description="Methods that it can serve, those that it cannot and why, and what auto would choose."
    )
    depth: Json | None = Field(
        None,
        description="What running it showed in its newest job: passed, and measured (parity with ONNX Runtime, "
        "gradient, dead inputs, logits or log-probabilities) or code, detail and hint; null before the first.",
    )
