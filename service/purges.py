"""What DELETE answers: the receipt of a deletion."""

from datetime import datetime

from pydantic import Field

from jobs.models import PurgeReceipt
from service.views import View


class PurgedFileView(View):
    """A file that is the tenant's no longer."""

    sha256: str = Field(description="Digest of its bytes; they are removed unless others have them, too.")
    bytes: int = Field(description="How many there were.")
    was: list[str] = Field(description="teacher, checkpoint, or names of artifacts.")


class KeptView(View):
    """A file that belonged to what was deleted, and stays."""

    sha256: str = Field(description="Digest of the file.")
    was: list[str] = Field(description="teacher, checkpoint, or names of artifacts.")
    because: str = Field(description="Why it stays.")


class PurgeView(View):
    """What a deletion removed, and what stays. It is told once, and not kept."""

    kind: str = Field(description="job or teacher.")
    id: str = Field(description="What was deleted.")
    deleted_at: datetime = Field(description="When its rows went, by the clock of the database.")
    rows: dict[str, int] = Field(description="Rows that went, by table of the ledger.")
    files: list[PurgedFileView] = Field(description="Files that are yours no longer.")
    kept: list[KeptView] = Field(description="Files of yours that stay, and why; empty: nothing is left.")


def purge_view(receipt: PurgeReceipt) -> PurgeView:
    return PurgeView.model_validate(receipt.model_dump())
