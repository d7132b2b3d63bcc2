"""From command-line options to a spec (torch-free): a file, then `--set` paths on top of it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Spec = dict[str, Any]  # Any: JSON


class BadOption(Exception):
    """An option of a command or of the environment is invalid; the message names it and says why."""


def read_spec_file(path: Path) -> Spec:
    """Return the JSON object in a spec file."""
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise BadOption(f"{path} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadOption(f"{path} is not JSON: line {error.lineno}, column {error.colno}") from None
    if not isinstance(spec, dict):
        raise BadOption(f"{path} does not hold a JSON object")
    return spec


def apply(spec: Spec, assignments: Iterable[str]) -> None:
    """Write each `dotted.path=value` into `spec`. A value that is valid JSON is read as JSON, any other as text."""
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.split(".")
        if not equals or not all(keys):
            raise BadOption(f"--set takes dotted.path=value, not {assignment!r}")
        _assign(spec, keys, _value(text))


def arguments(assignments: Iterable[str]) -> Spec:
    """Return `name=value` pairs as keyword arguments; a value that is valid JSON is read as JSON, any other as text."""
    found: Spec = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.isidentifier():
            raise BadOption(f"--arg takes name=value, not {assignment!r}")
        found[name] = _value(text)
    return found


def put(spec: Spec, path: str, value: Any) -> None:  # Any: JSON
    """Write a value at a dotted path."""
    _assign(spec, path.split("."), value)


def put_label(spec: Spec, key: str, value: str) -> None:
    """Write one label. Dots in its key do not make a path."""
    _assign(spec, ["labels", key], value)


def labels(pairs: Iterable[str]) -> dict[str, str]:
    """`key=value` pairs as a mapping."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise BadOption(f"--label takes key=value, not {pair!r}")
        found[key] = value
    return found


def shape(text: str) -> tuple[int, int, int]:
    """`C,H,W` as numbers."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise BadOption(f"a shape is channels,height,width, such as 3,32,32, not {text!r}")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


def _assign(spec: Spec, keys: list[str], value: Any) -> None:  # Any: JSON
    node = spec
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise BadOption(f"{'.'.join(keys)}: {key} is not an object in this spec")
    node[keys[-1]] = value


def _value(text: str) -> Any:  # Any: JSON
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
