"""The HTTP/1.1 of uvicorn, with a limit on how finely a body may be chopped.

Every chunk costs the event loop microseconds, so three megabytes of single bytes hold up everybody for twenty seconds.
"""

import asyncio
import socket
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

FREE_CHUNKS = 4096
LEAST_CHUNK_BYTES = 64  # on average, beyond those


class Connection(h11.Connection):
    """Refuses a body of crumbs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # Any: those of h11.Connection
        super().__init__(*arguments, **options)
        self._chunks = 0
        self._bytes = 0

    def next_event(self) -> Any:  # as in h11
        """The next event; RemoteProtocolError, which is a 400, for a body in too small chunks."""
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._chunks > FREE_CHUNKS and self._bytes < LEAST_CHUNK_BYTES * self._chunks:
                raise h11.RemoteProtocolError("the chunks are too small")
        elif isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        return event


class Protocol(H11Protocol):
    """For `uvicorn.run(http=Protocol)`, or `--http service.middleware.h11_protocol:Protocol`."""

    def __init__(self, config: Any, *arguments: Any, **options: Any) -> None:  # Any: those of uvicorn
        super().__init__(config, *arguments, **options)
        size = config.h11_max_incomplete_event_size
        self.conn = Connection(h11.SERVER) if size is None else Connection(h11.SERVER, size)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Have small answers sent at once: asyncio does so only where a socket says that it is TCP.

        One that was handed over as a descriptor does not, and every answer on a kept connection would take 40 ms more.
        """
        with suppress(OSError):  # it is none
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)

    def send_400_response(self, msg: str) -> None:
        """Answer, then close; where an answer is out already there is nothing to add to it."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()
