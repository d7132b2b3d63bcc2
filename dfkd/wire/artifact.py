"""The files of a finished job."""

from pydantic import Field

from dfkd.wire.model import Answer


class ArtifactView(Answer):
    """One file of a finished job."""

    name: str = Field(description="student.onnx, student.safetensors, report.json or samples.png.")
    sha256: str = Field(description="Digest of the bytes; the ETag of the download.")
    bytes: int = Field(description="Size.")
    media_type: str = Field(description="What the bytes are.")
    url: str = Field(description="Where it is downloaded.")


class ArtifactList(Answer):
    """The files of a job; empty until it succeeded."""

    artifacts: list[ArtifactView]
