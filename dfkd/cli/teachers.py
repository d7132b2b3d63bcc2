"""`dfkd upload`: send a teacher once, for many jobs."""

from typing import Annotated

import typer

from dfkd.cli import display
from dfkd.cli.options import DEFAULT_URL, Arguments, AsJson, ChosenLogits, Mean, Pick, Std, Url, Weights
from dfkd.cli.spec_options import (
    TEACHER_HELP,
    Architecture,
    Assign,
    Layout,
    PixelRange,
    Shape,
    SpecFile,
    TeacherOptions,
    TeacherOutput,
    input_in,
    spec_document,
)
from dfkd.cli.teacher_argument import NetworkOptions, file_to_read
from dfkd.client import Client

out = display.console(stderr=False)


def upload(  # noqa: PLR0917 - every option of a command is a parameter
    teacher: Annotated[str, typer.Argument(help=f"{TEACHER_HELP}.")],
    architecture: Architecture = None,
    shape: Shape = None,
    layout: Layout = None,
    mean: Mean = None,
    std: Std = None,
    range_: PixelRange = None,
    teacher_output: TeacherOutput = None,
    weights: Weights = None,
    pick: Pick = None,
    arguments: Arguments = None,
    logits: ChosenLogits = None,
    spec: SpecFile = None,
    assign: Assign = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Send a teacher for later jobs, with what is to be said of it. Prints its id, which `dfkd submit` takes."""
    told = TeacherOptions(architecture, shape, layout, mean, std, range_, teacher_output)
    document = spec_document(spec, told, assign)
    said = {"teacher": document["teacher"]} if document.get("teacher") else None
    network = NetworkOptions(weights=weights, pick=pick, arguments=arguments or [], logits=logits)
    with file_to_read(teacher, network, space=input_in(document)) as path, Client(url) as client:
        found = client.upload_teacher(path, said)
    out.print(found.model_dump_json(indent=2) if as_json else found.id)
