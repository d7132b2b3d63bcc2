"""What a process finds in its box: which paths, which devices, which limits."""

import os
import site
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
"""Where the packages lie: a checkout, or site-packages."""

PACKAGES = ("dfkd_core", "jobs", "worker")
SHARED_BYTES = 64 * 2**20  # of /tmp and of /dev/shm

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_LINKER = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")
_TEMPORARY, _SHARED = "/tmp", "/dev/shm"  # noqa: S108
_PROCESSORS = "/sys/devices/system"
_NODES = ("null", "zero", "full", "random", "urandom")
_GPU_NODES = ("nvidia*", "dxg")
_BARE_PROC = ("cpuinfo", "meminfo", "stat", "version")  # what libraries ask where no /proc of one's own can be had


class Mount(NamedTuple):
    """One step of furnishing a box. `source` is a path outside, a link's target, or a size in bytes."""

    kind: Literal["read", "write", "device", "tmpfs", "anybodys", "link", "directory", "proc", "seal"]
    path: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may use; None: as much as we may."""

    address_bytes: int | None = None  # RLIMIT_AS
    data_bytes: int | None = None  # RLIMIT_DATA; a GPU's driver reserves far more addresses than it uses memory
    cpu_seconds: int | None = None
    file_bytes: int | None = None
    processes: int | None = None  # threads count; applied where the box has a count of its own
    open_files: int | None = None

    def by_name(self) -> dict[str, int]:
        """`resource.RLIMIT_…` without its prefix → value. No core files, ever: they would hold the teacher."""
        names = {
            "address_bytes": "AS",
            "data_bytes": "DATA",
            "cpu_seconds": "CPU",
            "file_bytes": "FSIZE",
            "processes": "NPROC",
            "open_files": "NOFILE",
        }
        told = {names[name]: value for name, value in asdict(self).items() if value is not None}
        return {**told, "CORE": 0}


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process needs beside Python and its packages."""

    limits: Limits
    given: tuple[Path, ...] = ()  # for it alone to read; belongs to it from now on
    readable: tuple[Path, ...] = ()  # for everybody to read
    writable: Path | None = None  # its one directory; None: it may write nowhere
    hidden: tuple[Path, ...] = ()  # never to be seen, wherever it lies
    gpu: bool = False
    environment: Mapping[str, str] | None = None  # all of it; library paths in it become readable

    def mounts(self, *, own_proc: bool) -> list[Mount]:
        """How the box is furnished, in order. `own_proc`: whether it has a /proc of its own, or only a few files."""
        steps = [*_system(), *_devices(gpu=self.gpu), *_proc(own=own_proc)]
        steps.append(Mount("directory" if self.writable is None else "anybodys", _TEMPORARY, str(SHARED_BYTES)))
        seen: list[Path] = [Path(step.path) for step in steps if step.kind == "read"]
        for path in (*_python(), *_libraries(self.environment or {})):
            for name in dict.fromkeys((path, path.resolve())):
                if not any(name.is_relative_to(known) for known in seen):
                    seen.append(name)
                    steps.append(Mount("read", str(name), str(path.resolve())))
        hidden = [path.resolve() for path in self.hidden if any(path.resolve().is_relative_to(known) for known in seen)]
        steps += [Mount("tmpfs", str(path), str(2**20)) for path in hidden]
        steps += [Mount("read", str(path), str(path.resolve())) for path in (*self.readable, *self.given)]
        if self.writable is not None:
            steps.append(Mount("write", str(self.writable), str(self.writable.resolve())))
        return [*steps, *(Mount("seal", str(path)) for path in (*hidden, "/dev", "/"))]


def python_path(environment: Mapping[str, str]) -> str:
    """PYTHONPATH of a process that has no home: our packages first, then what is on ours."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    told = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if Path(entry).is_absolute()]
    return os.pathsep.join(dict.fromkeys([str(ROOT), *told, *(entry for entry in user if Path(entry).is_dir())]))


def _system() -> Iterator[Mount]:
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink():
            yield Mount("link", name, os.readlink(path))
        elif path.is_dir():
            yield Mount("read", name, name)
    for name in _LINKER:
        if Path(name).exists():
            yield Mount("read", name, str(Path(name).resolve()))


def _devices(*, gpu: bool) -> Iterator[Mount]:
    yield Mount("tmpfs", "/dev", str(2**20))
    nodes = [Path("/dev", name) for name in _NODES]
    nodes += [node for pattern in _GPU_NODES for node in sorted(Path("/dev").glob(pattern))] if gpu else []
    yield from (Mount("device", str(node), str(node)) for node in nodes if node.exists())
    yield from (
        Mount("link", f"/dev/{name}", f"/proc/self/fd/{n}") for n, name in enumerate(("stdin", "stdout", "stderr"))
    )
    yield Mount("link", "/dev/fd", "/proc/self/fd")
    yield Mount("anybodys", _SHARED, str(SHARED_BYTES))
    tree = "/sys" if gpu else _PROCESSORS
    if Path(tree).is_dir():
        yield Mount("read", tree, tree)


def _proc(*, own: bool) -> Iterator[Mount]:
    if own:
        yield Mount("proc", "/proc")
        return
    yield Mount("directory", "/proc")
    yield from (Mount("read", f"/proc/{name}", f"/proc/{name}") for name in _BARE_PROC if Path("/proc", name).exists())


def _python() -> list[Path]:
    """The interpreter, the libraries it finds, and our packages; nothing that merely lies beside them."""
    sites = site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
    named = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sites]
    named += [entry for entry in python_path(os.environ).split(os.pathsep) if Path(entry) != ROOT]
    found = [Path(name) for name in dict.fromkeys(named) if Path(name).parent != Path(name)]
    return [path for path in (*found, *(ROOT / name for name in PACKAGES)) if path.is_dir()]


def _libraries(environment: Mapping[str, str]) -> Iterable[Path]:
    named = [*environment.get("LD_LIBRARY_PATH", "").split(os.pathsep), environment.get("CUDA_HOME", "")]
    return [Path(name) for name in named if Path(name).is_absolute() and Path(name).is_dir() and name != "/"]
