"""The two base classes of the wire: an answer is read with tolerance, a request is read strictly."""

from typing import Any

from pydantic import BaseModel, ConfigDict

Json = dict[str, Any]  # Any: JSON values


class Answer(BaseModel):
    """What the API sends. New fields may appear in any version, so a reader ignores fields that it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", from_attributes=True, validate_by_name=True, serialize_by_alias=True
    )


class Request(BaseModel):
    """What the API takes. A field that the API does not know is refused, because it is most likely a typing error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
