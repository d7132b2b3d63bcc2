"""/menu: what can be asked for, without reading a manual."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from service.representation.menu import DEFAULT_CLASSES, DEFAULT_SHAPE, menu
from service.representation.openapi import problems
from service.representation.responses import json_response
from service.views import Menu, StudentsFor

router = APIRouter(prefix="/menu", tags=["menu"])


class MenuQuery(BaseModel):
    """The input that the students are sized for."""

    model_config = ConfigDict(extra="forbid")

    channels: int = Field(DEFAULT_SHAPE[0], ge=1, le=4096, description="Channels of the teacher's input.")
    height: int = Field(DEFAULT_SHAPE[1], ge=1, le=4096, description="Its height.")
    width: int = Field(DEFAULT_SHAPE[2], ge=1, le=4096, description="Its width.")
    num_classes: int = Field(DEFAULT_CLASSES, ge=2, le=100_000, description="Classes of the teacher.")
    student_width: float = Field(1.0, gt=0, le=16, allow_inf_nan=False, description="Width multiplier of the students.")


@router.get(
    "",
    operation_id="get_menu",
    summary="Methods, memories, students",
    response_model=Menu,
    responses=problems("validation-error"),
)
def get_menu(query: Annotated[MenuQuery, Query()]) -> Response:
    """JSON Schema of the spec, of each method's and memory's options, and the students with parameters and
    multiply-adds for one input; a 3 × 32 × 32 image and 10 classes unless the query says otherwise.
    """
    return json_response(menu(StudentsFor(**query.model_dump())))
