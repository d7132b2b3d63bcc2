"""/problems/{code}: describes an error code; the member `type` of a problem points here."""

from fastapi import APIRouter, Response

from dfkd.wire.problem import ProblemKind
from service.problems.errors import NotFound
from service.problems.table import BY_CODE
from service.representation.openapi import problems
from service.representation.responses import json_response

router = APIRouter(prefix="/problems", tags=["service"])


@router.get(
    "/{code}",
    operation_id="describe_problem",
    summary="Describe a kind of problem",
    response_model=ProblemKind,
    responses=problems("not-found"),
)
def describe_problem(code: str) -> Response:
    """Describes one `code`. Every code of a problem or of a job's `error` has a description."""
    row = BY_CODE.get(code)
    if row is None:
        raise NotFound("There is no such code.")
    return json_response(ProblemKind(code=row.code, status=row.status, title=row.title, meaning=row.meaning))
