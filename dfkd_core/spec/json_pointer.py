"""JSON pointers (RFC 6901) into what a caller sent (torch-free)."""

MAX_KEY_CHARACTERS = 64


def child_pointer(pointer: str, key: str | int) -> str:
    """`pointer` one step deeper; a key that is not fit to be repeated is left out."""
    text = str(key)
    if not text.isprintable() or len(text) > MAX_KEY_CHARACTERS:
        return pointer
    return f"{pointer}/{text.replace('~', '~0').replace('/', '~1')}"
