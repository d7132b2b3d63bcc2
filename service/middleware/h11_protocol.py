"""uvicorn's HTTP/1.1 protocol with a limit on the number of very small chunks in a body.

Every chunk costs the event loop some microseconds: three megabytes in chunks of one byte would block it for 20 seconds.
"""

import asyncio
import socket
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

FREE_CHUNKS = 4096
LEAST_CHUNK_BYTES = 64  # on average, once there are more than FREE_CHUNKS chunks


class Connection(h11.Connection):
    """Refuses a body whose chunks are too small on average."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # Any: those of h11.Connection
        super().__init__(*arguments, **options)
        self._chunks = 0
        self._bytes = 0

    def next_event(self) -> Any:  # as in h11
        """Return the next event of the connection.

        Raises:
            RemoteProtocolError: the chunks are too small; uvicorn answers 400.
        """
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
        """Set TCP_NODELAY, so that small answers are sent at once.

        asyncio sets it only for sockets that say they are TCP. A socket that was passed as a file descriptor does not
        say so, and every answer on a kept connection would take 40 ms longer.
        """
        with suppress(OSError):  # it is no TCP socket
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)

    def send_400_response(self, msg: str) -> None:
        """Answer 400 and close; only close if an answer was already sent."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()
