"""Parses JSON strictly: bytes become plain values, or one refusal names every invalid place.

Python's parser accepts NaN, 1e999, lone surrogates, duplicate keys and byte-order marks. Databases and other parsers do
not, so such a document would mean different things to different readers. This module refuses all of them.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

from dfkd_core.spec.json_pointer import child_pointer
from service.problems.errors import MAX_ERRORS, FieldError, MalformedJson, PayloadTooLarge, ValidationFailed

MAX_DEPTH = 16
MAX_NUMBER_CHARACTERS = 32


class _Unreadable:
    """Replaces a number that JSON or a double cannot represent."""


class _Repeated(dict[str, Any]):
    """An object in which a key appears more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated = sorted({key for key, _ in pairs if key in seen or seen.add(key)})  # type: ignore[func-returns-value]


def read_json_object(text: bytes, *, max_bytes: int) -> dict[str, Any]:
    """Return the object in `text`. Raises PayloadTooLarge, MalformedJson, or ValidationFailed with pointers."""
    if len(text) > max_bytes:
        raise PayloadTooLarge("The JSON document is too large.", max_bytes=max_bytes)
    document = _parse(_decode(text))
    errors = _first(_complaints(document, pointer="", depth=1))
    if errors:
        raise ValidationFailed("The JSON document cannot be taken as it is.", errors=errors)
    if not isinstance(document, dict):
        raise ValidationFailed("The JSON document must be an object.", errors=[FieldError("", "must be an object")])
    return document


def _decode(text: bytes) -> str:
    if text.startswith(b"\xef\xbb\xbf"):
        raise MalformedJson("JSON must not begin with a byte-order mark.")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedJson("JSON must be UTF-8.") from None


def _parse(text: str) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=lambda _: _Unreadable(),
        )
    except RecursionError:
        raise MalformedJson(f"JSON must not nest deeper than {MAX_DEPTH} levels.") from None
    except json.JSONDecodeError as error:
        raise MalformedJson(f"Not JSON: line {error.lineno}, column {error.colno}.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    return plain if len(plain) == len(pairs) else _Repeated(pairs)


def _integer(digits: str) -> int | _Unreadable:
    return int(digits) if len(digits) <= MAX_NUMBER_CHARACTERS else _Unreadable()


def _float(digits: str) -> float | _Unreadable:
    value = float(digits)
    return value if math.isfinite(value) else _Unreadable()


def _first(complaints: Iterator[FieldError]) -> list[FieldError]:
    return [error for error, _ in zip(complaints, range(MAX_ERRORS), strict=False)]


def _complaints(value: Any, *, pointer: str, depth: int) -> Iterator[FieldError]:
    """Everything wrong with a parsed value, in document order."""
    if isinstance(value, _Unreadable):
        yield FieldError(pointer, "must be a finite number of ordinary size")
    elif isinstance(value, str):
        yield from _text_complaints(value, pointer=pointer)
    elif isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            yield FieldError(pointer, f"must not nest deeper than {MAX_DEPTH} levels")
            return
        if isinstance(value, _Repeated):
            yield from (FieldError(child_pointer(pointer, key), "key appears more than once") for key in value.repeated)
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in entries:
            if isinstance(key, str):
                yield from _text_complaints(key, pointer=pointer)
            yield from _complaints(entry, pointer=child_pointer(pointer, key), depth=depth + 1)


def _text_complaints(text: str, *, pointer: str) -> Iterator[FieldError]:
    if "\x00" in text:
        yield FieldError(pointer, "must not contain the NUL character")
    elif any("\ud800" <= character <= "\udfff" for character in text):
        yield FieldError(pointer, "must not contain half of a surrogate pair")
