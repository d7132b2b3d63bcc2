"""The directory of a zip archive is read from the last bytes of a file, whoever wrote it and whatever surrounds it."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfkd_core.inspection.formats.zip_directory import TAIL_BYTES, names_in


def archive(*names: str, comment: bytes = b"", zip64: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.comment = comment
        for name in names:
            with file.open(name, "w", force_zip64=zip64) as member:
                member.write(b"content of " + name.encode())
    return buffer.getvalue()


def with_end64(whole: bytes) -> bytes:
    """The archive with the end that archives of more than 4 GiB have."""
    at = whole.rfind(b"PK\x05\x06")
    count, size, offset = (int.from_bytes(whole[at + a : at + b], "little") for a, b in ((10, 12), (12, 16), (16, 20)))
    numbers = [count, count, size, offset]
    end64 = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(12) + b"".join(n.to_bytes(8, "little") for n in numbers)
    locator = b"PK\x06\x07" + bytes(4) + at.to_bytes(8, "little") + (1).to_bytes(4, "little")
    return whole[:at] + end64 + locator + b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2)


def test_the_names_are_listed_in_order() -> None:
    names = ["archive/data.pkl", "archive/data/0", "ünder/ß"]
    assert names_in(archive(*names)) == names
    assert names_in(archive(*names, comment=b"PK\x05 a comment " * 3000)) == names
    assert names_in(b"a program before it" + archive(*names)) == names
    assert names_in(archive()) == []


def test_the_directory_of_a_very_large_archive_is_found() -> None:
    names = [f"archive/data/{index}" for index in range(5)]
    whole = with_end64(archive(*names, zip64=True))
    assert zipfile.ZipFile(io.BytesIO(whole)).namelist() == names
    assert names_in(whole) == names
    assert names_in(whole[-1000:]) == names


def test_of_a_directory_that_is_too_long_the_end_is_read() -> None:
    names = [f"archive/data/{index:020}" for index in range(20_000)]
    whole = archive(*names, "archive/constants.pkl")
    found = names_in(whole[-TAIL_BYTES:])
    assert found[-1] == "archive/constants.pkl"
    assert 1000 < len(found) < len(names)
    assert found[:-1] == names[-len(found) + 1 :]


@pytest.mark.parametrize("cut", [1, 10, 22, 60])
def test_an_archive_that_is_cut_short_has_no_directory(cut: int) -> None:
    assert names_in(archive("a", "b")[:-cut]) == []


@given(st.binary(max_size=300), st.booleans())
def test_whatever_bytes_come_names_come_out(content: bytes, hostile: bool) -> None:
    made = content.replace(b"\x00", b"PK\x01\x02") + b"PK\x05\x06" + content[:18] if hostile else content
    assert all(isinstance(name, str) for name in names_in(made))
