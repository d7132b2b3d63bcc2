"""The history of a job."""

from datetime import datetime

from pydantic import Field

from dfkd.wire.model import Answer, Json


class EventView(Answer):
    """One line of a job's history."""

    seq: int = Field(description="Rises within a job; pass the last one seen as `after`.")
    kind: str = Field(description="created, claimed, stage, published, ... New kinds may appear.")
    at: datetime = Field(description="When it was written.")
    fence: int = Field(description="Number of the claim under which it was written; 0 outside claims.")
    data: Json = Field(description="What the kind brings along.")


class EventPage(Answer):
    """Events in the order in which they happened."""

    events: list[EventView]
    last_seq: int = Field(description="Pass it as `after` to go on; equal to `after` when nothing was new.")
    terminal: bool = Field(description="The job has finished: after an empty page nothing will follow.")
