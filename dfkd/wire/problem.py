"""How the API refuses (RFC 9457)."""

from pydantic import Field

from dfkd.wire.model import Answer


class ProblemField(Answer):
    """One field of the request that is wrong."""

    pointer: str | None = Field(None, description="JSON pointer (RFC 6901) into the document that was sent.")
    parameter: str | None = Field(None, description="Name of the query parameter or header, if that is what is wrong.")
    detail: str = Field(description="What is wrong with it. The value itself is never repeated.")


class Problem(Answer):
    """RFC 9457 problem details."""

    type: str = Field(description="/problems/{code}, which describes this kind of problem.")
    title: str = Field(description="Short text for this kind of problem.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(description="Permanent and kebab-case.")
    detail: str = Field(description="What happened this time.")
    instance: str = Field(description="urn:uuid:{request_id}")
    request_id: str = Field(description="Id of this request in the service's log; also in X-Request-ID.")
    hint: str | None = Field(None, description="What to do about it.")
    errors: list[ProblemField] | None = Field(None, description="The fields that are wrong, at most 20.")
    nodes: list[str] | None = Field(None, description="teacher-op-unsupported: the ONNX nodes refused.")
    state: str | None = Field(None, description="invalid-transition, artifact-not-ready: the state of the job.")
    allowed: list[str] | None = Field(None, description="invalid-transition: states in which the request works.")
    max_bytes: int | None = Field(None, description="payload-too-large: the limit.")
    quota: str | None = Field(None, description="quota-exceeded: name of the quota.")
    limit: int | None = Field(None, description="quota-exceeded, rate-limited: the limit.")
    used: int | None = Field(None, description="quota-exceeded: how much of it is used.")


class ProblemKind(Answer):
    """One row of the table of problems."""

    code: str = Field(description="Permanent, kebab-case.")
    status: int | None = Field(description="The HTTP status; null for codes found only in a job's `error`.")
    title: str = Field(description="Short text.")
    meaning: str = Field(description="When it happens.")
