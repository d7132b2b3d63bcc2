"""uvicorn's connections with our protocol class."""

import asyncio
import socket

import uvicorn
from uvicorn.server import ServerState

from service.middleware.h11_protocol import Protocol


def test_small_answers_are_sent_at_once_on_a_socket_that_was_handed_over() -> None:
    config = uvicorn.Config("service.app:create_app", factory=True, http=Protocol, log_config=None)
    made: list[Protocol] = []

    def protocol() -> Protocol:
        made.append(Protocol(config, ServerState(), {}))
        return made[-1]

    async def main() -> int:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            handed_over = socket.fromfd(listener.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)  # as `--fd` does it
            async with await asyncio.get_running_loop().create_server(protocol, sock=handed_over):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                while not made or made[0].transport is None:
                    await asyncio.sleep(0.01)
                option = made[0].transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                writer.close()
                made[0].transport.abort()
                return int(option)

    assert asyncio.run(main()) == 1
