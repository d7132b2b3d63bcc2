"""Entity tags and byte ranges, by the letter of RFC 9110."""

import pytest

from service.problems.errors import RangeNotSatisfiable
from service.representation.http_conditional import byte_range, etag_matches

ETAG = '"abc"'


@pytest.mark.parametrize("header", ['"abc"', 'W/"abc"', '"x", W/"abc" ,"y"', "*", ' "abc"'])
def test_if_none_match_names_the_tag(header: str) -> None:
    assert etag_matches(header, ETAG)
    assert etag_matches(header, 'W/"abc"')


@pytest.mark.parametrize("header", [None, "", '"ab"', "abc", '"abcd"', 'W/"ab"'])
def test_if_none_match_names_another(header: str | None) -> None:
    assert not etag_matches(header, ETAG)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-9", (0, 9)),
        ("bytes=5-", (5, 99)),
        ("bytes=-10", (90, 99)),
        ("bytes=-1000", (0, 99)),
        ("bytes=90-1000", (90, 99)),
        ("bytes=99-99", (99, 99)),
        ("bytes=9-5", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=a-b", None),
        ("bytes=" + "9" * 40 + "-", None),
    ],
)
def test_a_single_range_is_read_and_anything_else_means_the_whole_file(
    header: str | None, expected: tuple[int, int] | None
) -> None:
    assert byte_range(header, None, etag=ETAG, size=100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_outside_the_file_is_not_satisfiable(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        byte_range(header, None, etag=ETAG, size=100)
    assert caught.value.headers["Content-Range"] == "bytes */100"


@pytest.mark.parametrize("condition", ['"other"', 'W/"abc"', "Sat, 01 Jan 2026 00:00:00 GMT"])
def test_a_range_on_another_condition_means_the_whole_file(condition: str) -> None:
    assert byte_range("bytes=0-9", condition, etag=ETAG, size=100) is None


def test_a_range_on_this_condition_is_served() -> None:
    assert byte_range("bytes=0-9", ETAG, etag=ETAG, size=100) == (0, 9)
