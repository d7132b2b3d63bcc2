"""JSON pointers (RFC 6901) into what a caller sent (torch-free)."""

from collections.abc import Iterator, Mapping
from typing import Any

MAX_KEY_CHARACTERS = 64


def child_pointer(pointer: str, key: str | int) -> str:
    """`pointer` one step deeper; a key that is not fit to be repeated is left out."""
    text = str(key)
    if not text.isprintable() or len(text) > MAX_KEY_CHARACTERS:
        return pointer
    return f"{pointer}/{text.replace('~', '~0').replace('/', '~1')}"


def leaves(tree: Mapping[str, Any], pointer: str = "") -> Iterator[str]:
    """Yield the pointers of all values of a tree of objects that are no objects themselves."""
    for key, value in tree.items():
        below = child_pointer(pointer, key)
        if isinstance(value, Mapping):
            yield from leaves(value, below)
        else:
            yield below
