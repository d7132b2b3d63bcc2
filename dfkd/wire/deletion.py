"""The receipt that DELETE answers with."""

from datetime import datetime

from pydantic import Field

from dfkd.wire.model import Answer


class PurgedFileView(Answer):
    """A file that is the tenant's no longer."""

    sha256: str = Field(description="Digest of its bytes; they are removed unless others have them, too.")
    bytes: int = Field(description="How many there were.")
    role: list[str] = Field(alias="was", description="teacher, checkpoint, or names of artifacts.")


class KeptView(Answer):
    """A file that belonged to what was deleted, and stays."""

    sha256: str = Field(description="Digest of the file.")
    role: list[str] = Field(alias="was", description="teacher, checkpoint, or names of artifacts.")
    reason: str = Field(alias="because", description="Why it stays.")


class PurgeView(Answer):
    """What a deletion removed, and what stays. It is told once, and not kept."""

    kind: str = Field(description="job or teacher.")
    id: str = Field(description="What was deleted.")
    deleted_at: datetime = Field(description="When its rows went, by the clock of the database.")
    rows: dict[str, int] = Field(description="Rows that went, by table of the ledger.")
    files: list[PurgedFileView] = Field(description="Files that are yours no longer.")
    kept: list[KeptView] = Field(description="Files of yours that stay, and why; empty: nothing is left.")
