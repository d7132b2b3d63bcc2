"""/menu: the methods, memories and students that a job can ask for, with the schemas of their options."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from dfkd.wire.menu import Menu, MenuQuery, StudentsFor
from service.representation.menu import menu
from service.representation.openapi import problems
from service.representation.responses import json_response

router = APIRouter(prefix="/menu", tags=["menu"])


@router.get(
    "",
    operation_id="get_menu",
    summary="Methods, memories, students",
    response_model=Menu,
    responses=problems("validation-error"),
)
def get_menu(query: Annotated[MenuQuery, Query()]) -> Response:
    """Returns the JSON Schemas of the spec and of each method's and memory's options, and the students with their
    parameters and multiply-adds. The sizes are for a 3 × 32 × 32 image and 10 classes unless the query says otherwise.
    """
    return json_response(menu(StudentsFor(**query.model_dump())))
