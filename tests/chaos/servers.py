"""Redis and PostgreSQL that can be killed, hung and started again in the same place, and a connection that can be cut.

The kernel ends a server when the thread that started it ends: start them in the main thread.
"""

import asyncio
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import redis

from tests.patience import PATIENCE
from tests.servers import (
    OWNER,
    SUPERUSER,
    become,
    new_cluster,
    postgres_command,
    redis_binary,
    short_directory,
    wait_for,
)

POSTGRES_SOCKET = ".s.PGSQL.5432"


class RedisServer:
    """A Redis that keeps nothing: killed and started again, it is empty."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "r.sock"
        self.url = f"redis+socket://{self.socket}?virtual_host=0"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Until it answers."""
        command: list[object] = [redis_binary(), "--port", "0", "--unixsocket", self.socket, "--save", ""]
        command += ["--appendonly", "no", "--dir", self._directory, *arguments]
        process = subprocess.Popen(become(None, command, signal.SIGKILL), stdout=subprocess.DEVNULL)
        self._process = process
        wait_for(process, self.ping, redis.ConnectionError)

    def ping(self) -> None:
        """Raise redis.ConnectionError where nobody answers."""
        with self.client() as client:
            client.ping()

    def kill(self) -> None:
        """As kill -9, also when it hangs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    @contextmanager
    def hung(self) -> Iterator[None]:
        """SIGSTOP, and SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A client of one's own."""
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=PATIENCE)


@contextmanager
def restartable_redis() -> Iterator[RedisServer]:
    """Running."""
    with short_directory() as directory:
        server = RedisServer(directory)
        server.start()
        try:
            yield server
        finally:
            server.kill()


class PostgresServer:
    """A PostgreSQL whose data outlives its process."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self._binaries, self._user = new_cluster(directory)
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, directory: Path | None = None) -> str:
        """SQLAlchemy URL, through a wire where its directory is given."""
        return f"postgresql+psycopg://{OWNER}@/postgres?host={directory or self.directory}"

    def start(self, *, wrapper: tuple[object, ...] = ()) -> None:
        """Until it answers; crash recovery included."""
        command = [*wrapper, *postgres_command(self._binaries, self.directory, *self.options)]
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                become(self._user, command, signal.SIGQUIT), stdout=log, stderr=log, cwd=self.directory
            )
        self._process = process
        wait_for(process, lambda: self.connect().close(), psycopg.OperationalError)

    def crash(self) -> None:
        """As `pg_ctl stop -m immediate`: no checkpoint, every connection cut."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(PATIENCE)
            self._process = None

    @contextmanager
    def hung(self) -> Iterator[None]:
        """SIGSTOP to all of its processes, and SIGCONT."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        stopped = [server, *server.children(recursive=True)]
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        """A superuser's connection of one's own, in autocommit mode."""
        return psycopg.connect(host=str(self.directory), user=SUPERUSER, dbname="postgres", autocommit=True)


@contextmanager
def restartable_postgres(*options: str) -> Iterator[PostgresServer]:
    """Running."""
    with short_directory() as directory:
        server = PostgresServer(directory, *options)
        server.start()
        try:
            yield server
        finally:
            server.crash()


class Wire:
    """Stands between clients and a unix socket; passes on, keeps silent, or loses the reply to a commit.

    An asyncio loop in a thread of its own. What is silent stays connected: packets that are dropped, not refused.
    """

    def __init__(self, target: Path, place: Path) -> None:
        self.silent = False
        self.replies_to_lose = 0
        self.lost = 0
        self._target, self._place = target, place
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)

    def stop(self) -> None:
        """Cut everything."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._place)

    async def _cut(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        doubtful = asyncio.Event()
        try:
            while self.silent:
                await asyncio.sleep(0.05)
            server_in, server_out = await asyncio.open_unix_connection(self._target)
        except OSError:
            client_out.close()
            return
        up = asyncio.create_task(self._pass_on(client_in, server_out, doubtful, upwards=True))
        down = asyncio.create_task(self._pass_on(server_in, client_out, doubtful, upwards=False))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            for writer in (server_out, client_out):
                writer.close()

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, doubtful: asyncio.Event, *, upwards: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                while self.silent:
                    await asyncio.sleep(0.05)
                if upwards and self.replies_to_lose > 0 and b"COMMIT\x00" in data:
                    self.replies_to_lose -= 1
                    doubtful.set()
                elif not upwards and doubtful.is_set():
                    self.lost += 1
                    return  # the server has committed, and nobody hears of it
                sink.write(data)
                await sink.drain()


@contextmanager
def wire_to(server: PostgresServer) -> Iterator[tuple[Wire, str]]:
    """A wire, and the database URL through it."""
    with short_directory() as directory:
        wire = Wire(server.directory / POSTGRES_SOCKET, directory / POSTGRES_SOCKET)
        wire.start()
        try:
            yield wire, server.url(directory)
        finally:
            wire.stop()


@contextmanager
def small_disk(size_mib: int) -> Iterator[Path]:
    """A file system of its own in memory; root only."""
    place = Path(tempfile.mkdtemp(prefix="dfkd-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "dfkd-chaos", place], check=True)
    try:
        yield place
    finally:
        _unmount(place)
        place.rmdir()


def _unmount(place: Path) -> None:
    deadline = time.monotonic() + 10
    while subprocess.run(["umount", place], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            subprocess.run(["umount", "--lazy", place], check=False)
            return
        time.sleep(0.1)
