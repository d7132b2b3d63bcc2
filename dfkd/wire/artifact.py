"""The files of a finished job."""

from pydantic import Field

from dfkd.wire.model import Answer


class ArtifactView(Answer):
    """One file of a finished job."""

    name: str = Field(description="student.onnx, student.safetensors, report.json or samples.png.")
    sha256: str = Field(description="Digest of the bytes; the ETag of the download.")
    bytes: int = Field(description="Size.")
    media_type: str = Field(description="Media type of the content.")
    url: str = Field(description="Path of the download.")


class ArtifactList(Answer):
    """The files of a job; empty until it succeeded."""

    artifacts: list[ArtifactView]
