"""Hints in the words of the command line (torch-free).

Hints are written for the API: they name fields of the spec (teacher.input.mean) and requests (GET /menu). Where a
command shows one, it says the same of options and commands.
"""

import re

_PHRASES: list[tuple[str, str]] = [  # patterns of hints, and what a command says instead; in this order
    (r"GET /menu lists the students", "`dfkd students` lists the students"),
    (r"GET /menu lists the methods", "`dfkd inspect` lists the methods that suit a teacher"),
    (r"teacher\.input\.shape \[channels, height, width\]", "--shape channels,height,width"),
    (r"teacher\.input\.mean, std and range", "--mean, --std and --range lowest,highest"),
    (r"teacher\.input\.shape\b", "--shape"),
    (r"teacher\.input\.mean\b", "--mean"),
    (r"teacher\.input\.std\b", "--std"),
    (r"teacher\.input\.range\b", "--range"),
    (r"teacher\.input\.layout\b", "--layout"),
    (r"teacher\.output\b", "--teacher-output"),
    (r"teacher\.architecture\b", "--architecture"),
    (r"student\.architecture\b", "--student"),
]
_REQUEST = re.compile(r"\b(GET|POST|PUT|DELETE|PATCH) /")
_SENTENCE = re.compile(r"(?<=[.:;]) +")


def for_command_line(hint: str) -> str:
    """Return the hint with options instead of fields and commands instead of requests.

    A sentence about a request that no command makes is left out.
    """
    for pattern, words in _PHRASES:
        hint = re.sub(pattern, words, hint)
    return " ".join(sentence for sentence in _SENTENCE.split(hint) if not _REQUEST.search(sentence))
