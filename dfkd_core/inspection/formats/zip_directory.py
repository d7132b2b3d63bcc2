"""The names in a zip archive, read from the directory at its end. Only the last bytes of the file are needed.

Archives of PyTorch begin with the weights, so that the first bytes of a large one tell nothing. The directory tells
what was saved, whatever the size of the file. The standard library's `zipfile` reads a directory of any size into
memory, and needs the whole file; this module reads at most TAIL_BYTES, of a file that may be hostile.
"""

import struct
from collections.abc import Iterator

TAIL_BYTES = 2**20  # about 10 000 entries; of a longer directory the last ones are read

_END = struct.Struct("<4s4H2LH")  # signature, disks, counts, bytes and offset of the directory, bytes of the comment
_END64 = struct.Struct("<4sQ2H2L4Q")  # signature, bytes of the record, versions, disks, counts, bytes and offset
_LOCATOR_BYTES = 20
_ENTRY = struct.Struct("<4s6H3L5H2L")  # signature, …, bytes of name, of extra field and of comment, …
_END_SIGNATURE, _END64_SIGNATURE, _ENTRY_SIGNATURE = b"PK\x05\x06", b"PK\x06\x06", b"PK\x01\x02"
_LOCATOR_SIGNATURE = b"PK\x06\x07"
_MAX_COMMENT = 0xFFFF


def names_in(tail: bytes) -> list[str]:
    """Return the names that the directory in `tail`, the last bytes of an archive, lists; [] if there is no directory.

    If the directory is longer than `tail`, its last entries are returned.
    """
    end = tail.rfind(_END_SIGNATURE, max(0, len(tail) - _END.size - _MAX_COMMENT))
    if end < 0 or end + _END.size > len(tail):
        return []
    size = _END.unpack_from(tail, end)[5]
    locator = max(0, end - _LOCATOR_BYTES)
    if tail[locator : locator + 4] == _LOCATOR_SIGNATURE:
        end64 = tail.rfind(_END64_SIGNATURE, 0, locator)
        if 0 <= end64 <= locator - _END64.size:
            end, size = end64, _END64.unpack_from(tail, end64)[8]
    return list(_entries(tail, max(0, end - size), end))


def _entries(tail: bytes, start: int, end: int) -> Iterator[str]:
    """Yield the names of the entries between two offsets; bytes before the first whole entry are skipped."""
    at = tail.find(_ENTRY_SIGNATURE, start, end)
    while 0 <= at <= end - _ENTRY.size:
        name_bytes, extra_bytes, comment_bytes = _ENTRY.unpack_from(tail, at)[10:13]
        behind = at + _ENTRY.size + name_bytes
        if behind + extra_bytes + comment_bytes <= end:
            yield tail[at + _ENTRY.size : behind].decode("utf-8", "replace")
            at = tail.find(_ENTRY_SIGNATURE, behind + extra_bytes + comment_bytes, end)
        else:
            at = tail.find(_ENTRY_SIGNATURE, at + 1, end)  # a signature inside the bytes that were cut
