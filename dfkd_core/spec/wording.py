"""Hints in the words of the command line (torch-free).

Hints are written for the API: they name fields of the spec, each by its whole path (teacher.input.mean), and requests
(GET /menu). Where a command shows one, fields are options and requests are commands.
"""

import re
from collections.abc import Mapping

OPTIONS: Mapping[str, str] = {
    "teacher.architecture": "--architecture",
    "teacher.input.shape": "--shape",
    "teacher.input.layout": "--layout",
    "teacher.input.mean": "--mean",
    "teacher.input.std": "--std",
    "teacher.input.range": "--range",
    "teacher.output": "--teacher-output",
    "student.architecture": "--student",
    "distillation.budget.effort": "--effort",
}
"""Fields of the spec, and the option that `dfkd submit`, `dfkd plan` and `dfkd inspect` have for each of them."""

REQUESTS: Mapping[str, str] = {
    "GET /menu lists the students": "`dfkd students` lists the students",
    "GET /menu lists the methods": "`dfkd inspect` lists the methods that suit a teacher",
    "POST /plans says": "`dfkd plan` says",
    "Submit the spec to POST /jobs": "Submit the spec again with `dfkd submit --spec FILE`",
    "POST /jobs takes": "`dfkd submit` takes",
}
"""What hints say of requests, and what a command says instead."""

FIELD = re.compile(r"(?<![\w./])(?:teacher|student|distillation|accept|export)(?:\.[a-z_]+)+\b")
"""The path of a field in a hint, or the name of a file."""

_FILES = (".onnx", ".safetensors", ".json")
_LIST = re.compile(r" \[(\w+(?:, \w+)+)\]")
_REQUEST = re.compile(r"\b(GET|POST|PUT|DELETE|PATCH) /")
_SENTENCE = re.compile(r"(?<=[.:;]) +")


def for_command_line(hint: str, options: Mapping[str, str] = OPTIONS) -> str:
    """Return the hint with options instead of fields and commands instead of requests.

    Fields without an option are assigned with `--set`. A sentence about a request that no command makes is left out.
    """
    for request, command in REQUESTS.items():
        hint = hint.replace(request, command)
    hint = _LIST.sub(lambda match: " " + match[1].replace(", ", ","), hint) if FIELD.search(hint) else hint
    hint = FIELD.sub(lambda match: _option(match[0], options), hint)
    return " ".join(sentence for sentence in _SENTENCE.split(hint) if not _REQUEST.search(sentence))


def _option(field: str, options: Mapping[str, str]) -> str:
    if field.endswith(_FILES):
        return field
    return options.get(field, f"--set {field}=…")
