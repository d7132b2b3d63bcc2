"""A command never shows a hint about a request, and the API never one that only the command line understands."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from dfkd.cli.main import app
from dfkd_core.inspection.formats import refused
from dfkd_core.spec.config import DistillSpec
from dfkd_core.spec.explanation import field_paths
from dfkd_core.spec.wording import FIELD, OPTIONS, for_command_line

ROOT = Path(__file__).resolve().parents[3]
LISTING = re.compile(r"`dfkd (students|inspect|show|list)|--(set|shape|mean|std|student|architecture)\b")


def hints() -> Iterator[tuple[str, str]]:
    """Every text that is given as a hint in the code of the science, the ledger and the service, with its place."""
    for folder in ("dfkd_core", "jobs", "service", "worker"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for found in ast.walk(ast.parse(path.read_text())):
                named = isinstance(found, ast.Assign) and ast.unparse(found.targets[0]) == "hint"
                if isinstance(found, ast.keyword | ast.Assign) and (named or getattr(found, "arg", "") == "hint"):
                    texts = [one.value for one in ast.walk(found.value) if isinstance(one, ast.Constant)]
                    yield f"{path.relative_to(ROOT)}:{found.value.lineno}", "".join(map(str, texts))


def test_a_command_says_options_and_commands_instead_of_fields_and_requests() -> None:
    said = for_command_line("Give teacher.input.shape [channels, height, width].")
    assert said == "Give --shape channels,height,width."
    assert for_command_line("Give teacher.input.mean and teacher.input.std.") == "Give --mean and --std."
    assert "`dfkd students` lists" in for_command_line("Choose another; GET /menu lists the students.")
    assert for_command_line("Known are a, b. GET /menu has the JSON Schema of the spec.") == "Known are a, b."
    assert for_command_line("Raise distillation.budget.steps.") == "Raise --set distillation.budget.steps=…."
    assert for_command_line("Use student.onnx, which has both.") == "Use student.onnx, which has both."
    assert for_command_line("") == ""


def test_every_option_is_one_of_the_command_and_of_a_field() -> None:
    submit = get_command(app).commands["submit"]  # type: ignore[attr-defined]  # a group has commands
    known = {name for parameter in submit.params for name in parameter.opts}
    assert known >= {*OPTIONS.values(), "--set"}
    assert {*field_paths(DistillSpec)} >= {*OPTIONS}


def test_hints_name_fields_by_their_whole_path_and_only_fields_that_there_are() -> None:
    options = "distillation.method_options."
    fields = {*field_paths(DistillSpec), options + "learning_rate", options + "balance_weight"}
    named = {(place, field) for place, hint in hints() for field in FIELD.findall(hint)}
    assert len(named) > 20
    unknown = {(place, field) for place, field in named if field not in fields}
    assert {field for _, field in unknown} <= {"teacher.onnx", "student.onnx"}, unknown


def test_code_in_hints_stays_as_it_is() -> None:
    code = "write `return torch.export.load('model.pt2')`, and send teacher.onnx"
    assert for_command_line(code) == code
    of_formats = [text for text in vars(refused).values() if isinstance(text, str) and text.startswith(("It ", "A "))]
    assert len(of_formats) > 4
    assert [text for text in of_formats if for_command_line(text) != text] == []


def test_no_field_is_left_in_the_words_of_a_command() -> None:
    for place, hint in hints():
        said = for_command_line(hint)
        left = [field for field in FIELD.findall(re.sub(r"--set \S+", "", said)) if not field.endswith(".onnx")]
        assert left == [], place


def test_no_hint_leads_a_command_to_a_request() -> None:
    assert len(list(hints())) > 60
    assert [place for place, hint in hints() if re.search(r"\b(GET|POST) /", for_command_line(hint))] == []


@pytest.mark.parametrize("exempt", ["dfkd_core/exporting/"])  # its hints are for `dfkd export-teacher` alone
def test_no_hint_of_the_api_speaks_of_options_of_commands(exempt: str) -> None:
    assert [place for place, hint in hints() if LISTING.search(hint) and not place.startswith(exempt)] == []
