"""A notice to the user: what was seen and what can be done about it (torch-free)."""

from pydantic import BaseModel, ConfigDict, Field


class Notice(BaseModel):
    """Something the user should know that did not stop the job: a warning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = Field(description="Permanent, kebab-case.")
    detail: str = Field(description="What was seen.")
    hint: str | None = Field(None, description="What to do about it.")
