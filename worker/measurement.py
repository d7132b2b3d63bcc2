"""How fast this worker is: a benchmark of a few seconds in a child process, while the worker has nothing else to do.

The result is kept in the data directory, so that a worker that starts again need not measure again. A job that comes
ends a measurement, which is repeated later: the two would slow each other down. Only the tries of bfloat16 are made
before a job that needs them, and never again.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import PositiveFloat, TypeAdapter, ValidationError

from dfkd_core.output.provenance import cpu_name
from dfkd_core.planning.worker_speed import SPEED_VERSION, WorkerSpeed
from jobs.devices import DeviceClass, class_of
from jobs.settings import Settings
from worker.runner.process import runner_environment

log = logging.getLogger(__name__)

BENCHMARK = (sys.executable, "-P", "-m", "dfkd_core.calibration")

_MOST_FAILURES = 3
_TRIES_SECONDS = 120.0  # after which a job need not wait any longer for the tries of bfloat16
_TRIES = TypeAdapter(tuple[PositiveFloat, ...])
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Measurement:
    """Measures once, or takes the result from the data directory. Methods may be called from any thread."""

    def __init__(self, settings: Settings, *, benchmark: Sequence[str] = BENCHMARK) -> None:
        """`benchmark` is the command that measures; it is given the options for threads and device."""
        self._settings = settings
        self._benchmark = benchmark
        self._path = settings.data_dir / f"speed-{settings.worker_device.replace(':', '-')}.json"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._trying = threading.Lock()
        self._tries: tuple[float, ...] | None = None
        self.speed = self._kept()

    @property
    def memory_bytes(self) -> int | None:
        """Memory that one runner may use: of the host, or of the GPU; None if it is not known."""
        if class_of(self._settings.worker_device) is DeviceClass.GPU:
            return None if self.speed is None else self.speed.device_bytes
        limit = self._settings.runner_memory_bytes
        return limit or host_memory_bytes() // self._settings.worker_slots

    def start(self) -> None:
        """Begin to measure in the background, unless there is a result, a measurement, or no hope."""
        with self._lock:
            running = self._thread is not None and self._thread.is_alive()
            if self.speed is None and not running and self._failures < _MOST_FAILURES:
                self._thread = threading.Thread(target=self._measure, name="measurement", daemon=True)
                self._thread.start()

    def bf16_tries(self) -> tuple[float, ...]:
        """Return how many times faster bfloat16 is here, try by try; nothing if that cannot be measured.

        The tries are made now if there are none yet, which takes a few seconds.
        """
        with self._trying:
            if self._tries is None:
                self._tries = self.speed.bf16_tries if self.speed is not None else self._try_bf16()
            return self._tries

    def _try_bf16(self) -> tuple[float, ...]:
        try:
            with self._child("--precision") as child:
                output = subprocess.run(**child, check=True, timeout=_TRIES_SECONDS).stdout
            tries = _TRIES.validate_json(output)
        except (OSError, subprocess.SubprocessError, ValidationError) as error:
            log.warning("bfloat16 cannot be tried", extra={"reason": type(error).__name__})
            return ()
        log.info("bfloat16 tried", extra={"times_faster": [round(factor, 2) for factor in tries]})
        return tries

    def interrupt(self) -> None:
        """End a measurement that is running."""
        with self._lock:
            if self._process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _measure(self) -> None:
        try:
            output, status = self._run_child()
        except OSError as error:
            self._failures += 1
            log.warning("the speed of this worker cannot be measured", extra={"reason": str(error)})
            return
        if status == -signal.SIGKILL:
            return  # interrupted
        try:
            speed = WorkerSpeed.model_validate_json(output)
        except ValidationError:
            self._failures += 1
            log.warning("the measurement of this worker's speed failed", extra={"status": status})
            return
        with self._trying:  # a worker decides once: tries that a job was given stay
            self._tries = self._tries or speed.bf16_tries
            self.speed = speed.model_copy(update={"bf16_tries": self._tries})
        log.info("speed measured", extra={"worker_class": speed.worker_class})
        self._keep(self.speed)

    @contextmanager
    def _child(self, *more: str) -> Iterator[dict[str, Any]]:
        """Yield how the benchmark is started, as arguments of `subprocess.Popen`. It dies with this process."""
        settings = self._settings
        options = ["--threads", str(settings.worker_threads), "--device", settings.worker_device, *more]
        tuning = [sys.executable, "-P", "-m", "dfkd_core.sandbox.process_tuning", str(os.getpid())]
        with TemporaryDirectory(prefix="dfkd-") as temporary:
            environment = runner_environment(os.environ, threads=settings.worker_threads, temporary=Path(temporary))
            yield {
                "args": [*tuning, *self._benchmark, *options],
                "env": environment,
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.DEVNULL,
            }

    def _run_child(self) -> tuple[bytes, int]:
        """Run the benchmark → its output and exit status."""
        with self._child() as child:
            with self._lock:
                self._process = subprocess.Popen(**child, start_new_session=True)
            try:
                output, _ = self._process.communicate()
                return output, self._process.returncode
            finally:
                with self._lock:
                    self._process = None

    def _key(self) -> dict[str, object]:
        """Return the conditions under which a kept result still counts."""
        settings = self._settings
        return {
            "version": SPEED_VERSION,
            "torch": _version_of("torch"),
            "threads": settings.worker_threads,
            "device": settings.worker_device,
            "processor": cpu_name(),
        }

    def _kept(self) -> WorkerSpeed | None:
        try:
            kept = json.loads(self._path.read_bytes())
            speed = WorkerSpeed.model_validate(kept["speed"]) if kept["key"] == self._key() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return speed if speed is not None and speed.bf16_tries else None  # an earlier version tried no bfloat16

    def _keep(self, speed: WorkerSpeed) -> None:
        text = json.dumps({"key": self._key(), "speed": speed.model_dump(mode="json")})
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            temporary.write_text(text)
            temporary.replace(self._path)
        except OSError as error:
            log.warning("the speed of this worker is not kept", extra={"reason": str(error)})


def host_memory_bytes() -> int:
    """Memory of this host, or of the container that this process is in."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such control group, or no limit
            found.append(int(path.read_text()))
    return min(found)


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
