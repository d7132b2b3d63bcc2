"""The receipt that DELETE answers with."""

from datetime import datetime

from pydantic import Field

from dfkd.wire.model import Answer


class PurgedFileView(Answer):
    """A file that no longer belongs to the tenant."""

    sha256: str = Field(description="Digest of its bytes. They are removed unless others have the same file.")
    bytes: int = Field(description="Size of the file.")
    role: list[str] = Field(alias="was", description="What the file was: teacher, checkpoint, or names of artifacts.")


class KeptView(Answer):
    """A file that belonged to the deleted job or teacher, and stays."""

    sha256: str = Field(description="Digest of the file.")
    role: list[str] = Field(alias="was", description="What the file was: teacher, checkpoint, or names of artifacts.")
    reason: str = Field(alias="because", description="Why it stays.")


class PurgeView(Answer):
    """The receipt of a deletion: what was removed, and what stays. It is sent once and not stored."""

    kind: str = Field(description="job or teacher.")
    id: str = Field(description="Id of the deleted job or teacher.")
    deleted_at: datetime = Field(description="When its rows were deleted, by the clock of the database.")
    rows: dict[str, int] = Field(description="Number of deleted rows, by table of the ledger.")
    files: list[PurgedFileView] = Field(description="Files that no longer belong to you.")
    kept: list[KeptView] = Field(description="Your files that stay, and why; empty if nothing is left.")
