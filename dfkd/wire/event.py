"""The history of a job."""

from datetime import datetime

from pydantic import Field

from dfkd.wire.model import Answer, Json


class EventView(Answer):
    """One entry of a job's history."""

    seq: int = Field(description="Number of the event; it rises within a job. Pass the last one seen as `after`.")
    kind: str = Field(description="created, claimed, stage, published, ... New kinds may appear.")
    at: datetime = Field(description="When it was written.")
    fence: int = Field(description="Number of the claim under which it was written; 0 outside claims.")
    data: Json = Field(description="Details; their fields depend on the kind.")


class EventPage(Answer):
    """Events in the order in which they happened."""

    events: list[EventView]
    last_seq: int = Field(description="Pass it as `after` for the next page; equal to `after` if nothing was new.")
    terminal: bool = Field(description="True if the job has finished: after an empty page no event will follow.")
