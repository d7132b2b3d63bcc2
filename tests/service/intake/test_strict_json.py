"""Strict JSON: which texts are refused, and that a refusal names the place without repeating the text."""

import time

import pytest

from service.intake.strict_json import MAX_DEPTH, read_json_object
from service.problems.errors import MAX_ERRORS, ApiError, MalformedJson, PayloadTooLarge, ValidationFailed

MAX_BYTES = 64 * 1024


def refusal(text: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_json_object(text, max_bytes=MAX_BYTES)
    return caught.value


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    ("text", "pointers"),
    [
        (b'{"a": NaN}', ["/a"]),
        (b'{"a": -Infinity, "b": [0, 1e999]}', ["/a", "/b/1"]),
        (b'{"a": ' + b"9" * 5000 + b"}", ["/a"]),
        (b'{"a": "\\ud800"}', ["/a"]),
        (b'{"\\ud800": 1}', [""]),
        (b'{"a": "x\\u0000y"}', ["/a"]),
        (b'{"a": 1, "b": {"c": 1, "c": 2}, "a": 3}', ["/a", "/b/c"]),
        (b'{"a/b~c": NaN}', ["/a~1b~0c"]),
        (nested(MAX_DEPTH + 1), ["/a" * MAX_DEPTH]),
        (b"null", [""]),
        (b"[]", [""]),
        (b'"text"', [""]),
    ],
)
def test_what_a_schema_cannot_see_is_refused_with_its_pointer(text: bytes, pointers: list[str]) -> None:
    error = refusal(text)
    assert isinstance(error, ValidationFailed)
    assert [entry.pointer for entry in error.errors] == pointers


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{} {}",
        b"{'a': 1}",
        b"{} // no",
        b'{"a": 01}',
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        "{}".encode("utf-16"),
    ],
)
def test_what_is_not_utf8_json_is_malformed(text: bytes) -> None:
    assert isinstance(refusal(text), MalformedJson)


def test_the_limit_of_the_size_is_exact() -> None:
    text = b'{"a": "' + b"x" * (MAX_BYTES - 9) + b'"}'
    assert len(text) == MAX_BYTES
    assert read_json_object(text, max_bytes=MAX_BYTES)["a"]
    assert isinstance(refusal(text + b" "), PayloadTooLarge)


def test_the_limit_of_the_depth_is_exact() -> None:
    assert read_json_object(nested(MAX_DEPTH), max_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    "text", [b"[" * MAX_BYTES, b'{"a":' * 12_000, b'{"a":[' + b"NaN," * 15_000 + b"NaN]}", b"9" * 60_000]
)
def test_a_hostile_document_is_refused_quickly_and_briefly(text: bytes) -> None:
    started = time.process_time()
    error = refusal(text)
    assert time.process_time() - started < 5  # what grows with the square of its size takes longer
    assert len(error.errors) <= MAX_ERRORS


def test_ordinary_json_comes_through_unchanged() -> None:
    text = '{"name": "détecteur 🐈", "n": -1.5e-3, "list": [true, null, {"deep": "x"}], "big": 9223372036854775807}'
    document = {"name": "détecteur 🐈", "n": -0.0015, "list": [True, None, {"deep": "x"}], "big": 2**63 - 1}
    assert read_json_object(text.encode(), max_bytes=MAX_BYTES) == document
