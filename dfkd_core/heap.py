"""The heap of this process: what malloc keeps of freed memory can be given back to the system.

A run keeps its buffers between updates, because new ones cost page faults (`sandbox/process_tuning.py`). Between the
parts of a round other sizes are needed. Where those do not fit into the holes that the last part has left, the heap
grows although much of it is free.
"""

import ctypes
from typing import Final

MOST_FREE: Final = 512 * 1024**2  # bytes that are worth keeping for the next part of a round


class _Mallinfo2(ctypes.Structure):
    """The ten counts that glibc's `mallinfo2` returns. `fordblks` is the number of free bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def free_bytes() -> int:
    """Return how many bytes the heap keeps that nothing uses; 0 where malloc does not tell, as glibc before 2.33."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return 0
    mallinfo2.restype = _Mallinfo2
    return int(mallinfo2().fordblks)


def give_back() -> None:
    """Give free memory back to the system if there is much of it. Values in use, and so the bytes of a run, stay."""
    if free_bytes() > MOST_FREE:
        ctypes.CDLL(None).malloc_trim(0)
