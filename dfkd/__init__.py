"""The public package: the typed client, the command line, and the models of what the API takes and sends.

    from dfkd import Client, compress

Both are loaded when their names are first used, so that the server can import `dfkd.wire` without an HTTP client.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dfkd.client import Client, DfkdClient
    from dfkd.compression import compress

__version__ = "0.1.0"
__all__ = ["Client", "DfkdClient", "__version__", "compress"]


def __getattr__(name: str) -> object:
    """Import the client, or `compress`, at the first use of its name (PEP 562)."""
    if name == "compress":
        from dfkd.compression import compress

        return compress
    if name not in {"Client", "DfkdClient"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dfkd.client import Client

    return Client
