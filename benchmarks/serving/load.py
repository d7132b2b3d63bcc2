"""Many HTTP clients in one process, with asyncio and keep-alive connections; each answer is timed from its request."""

import asyncio
import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(slots=True)
class Answers:
    """The answers that the clients of one measurement received."""

    seconds: list[float] = field(default_factory=list)  # of each answer
    statuses: dict[int, int] = field(default_factory=dict)
    broken: int = 0  # connections that were cut or refused, and then made again
    elapsed: float = 0.0

    def quantile(self, share: float) -> float:
        """Return the seconds within which this share of the answers came."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")

    def record(self) -> dict[str, object]:
        """Return the values for the result file, with times in milliseconds."""
        return {
            "answers": len(self.seconds),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "broken connections": self.broken,
            "answers per second": round(len(self.seconds) / self.elapsed, 1),
            **{f"p{percent}, ms": round(1000 * self.quantile(percent / 100), 1) for percent in (50, 95, 99)},
            "slowest, ms": round(1000 * max(self.seconds, default=float("nan")), 1),
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    body: bytes = b""
    media_type: str = "application/json"

    def encoded(self, host: str) -> bytes:
        """Return the bytes of the request in HTTP/1.1."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"host: {host}"]
        if self.body:
            lines += [f"content-type: {self.media_type}", f"content-length: {len(self.body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True)
class Load:
    """The state that all clients of one measurement share."""

    url: str
    request: Callable[[], Asked]
    interval: float
    since: float  # earlier requests are not counted
    until: float
    answers: Answers = field(default_factory=Answers)


WARM_UP_SECONDS = 2.0


def poll(url: str, paths: Sequence[str], *, clients: int, seconds: float, interval: float, seed: int = 0) -> Answers:
    """Each client requests one of `paths` every `interval` seconds, or right after each answer if `interval` is 0.

    Before that, the same happens for `WARM_UP_SECONDS` that are not measured: connections are made, caches filled.
    """
    draws = random.Random(seed)

    def request() -> Asked:
        return Asked("GET", draws.choice(paths))

    warm_up = WARM_UP_SECONDS
    return ask(url, request, clients=clients, seconds=seconds, interval=interval, seed=seed, warm_up=warm_up)


def ask(
    url: str,
    request: Callable[[], Asked],
    *,
    clients: int,
    seconds: float,
    interval: float = 0.0,
    seed: int = 0,
    warm_up: float = 0.0,
) -> Answers:
    """Send any request for `warm_up` seconds that are not measured and then for `seconds` that are."""
    gc.collect()
    gc.freeze()  # otherwise garbage collection here would count as the service's time
    since = time.monotonic() + warm_up
    load = Load(url, request, interval, since=since, until=since + seconds)
    asyncio.run(_ask(load, clients=clients, draws=random.Random(seed)))
    load.answers.elapsed = time.monotonic() - since
    return load.answers


async def _ask(load: Load, *, clients: int, draws: random.Random) -> None:
    started = time.monotonic()
    await asyncio.gather(*(_client(load, started + draws.uniform(0, load.interval)) for _ in range(clients)))


async def _client(load: Load, due: float) -> None:
    place, answers, interval = urlsplit(load.url), load.answers, load.interval
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while due < load.until and time.monotonic() < load.until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        begun = time.monotonic()
        due = max(due + interval, begun) if interval else begun
        try:
            if connection is None:
                connection = await asyncio.open_connection(place.hostname, place.port)
            status = await _exchange(*connection, load.request().encoded(place.netloc))
        except (OSError, EOFError):
            answers.broken += begun >= load.since
            if connection is not None:
                connection[1].close()
                connection = None
            await asyncio.sleep(0.05)
            continue
        if begun >= load.since:
            answers.seconds.append(time.monotonic() - begun)
            answers.statuses[status] = answers.statuses.get(status, 0) + 1
    if connection is not None:
        connection[1].close()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> int:
    """Return the status of the answer; its body is read and dropped."""
    writer.write(message)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    await reader.readexactly(int(fields.get("content-length", 0)))
    return int(head[0].split(" ", 2)[1])
