"""What a sandboxed process finds: which paths, which devices, which resource limits."""

import os
import site
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
"""The directory that holds our packages: a checkout, or site-packages."""

PACKAGES = ("dfkd_core", "jobs", "worker")
TMPFS_BYTES = 64 * 2**20
"""The size of /tmp and the size of /dev/shm in the sandbox."""

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_LINKER = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")
_TEMPORARY, _SHARED_MEMORY = "/tmp", "/dev/shm"  # noqa: S108
_PROCESSORS = "/sys/devices/system"
_DEVICES = ("null", "zero", "full", "random", "urandom")
_GPU_DEVICES = ("nvidia*", "dxg")
_PROC_FILES = (
    "cpuinfo",
    "meminfo",
    "stat",
    "version",
)  # what libraries read, where the sandbox has no /proc of its own
_EMPTY_TMPFS_BYTES = 2**20


class Mount(NamedTuple):
    """One step of building the sandbox's file system.

    `source` is a path on the host, the target of a link, or the size of a tmpfs in bytes, according to `kind`. The kind
    `read_only` makes what is mounted at `path` read-only once everything in it is in place.
    """

    kind: Literal["read", "write", "device", "tmpfs", "world_writable", "link", "directory", "proc", "read_only"]
    path: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What a process may use. None leaves the limit of the process that starts it."""

    address_bytes: int | None = None  # RLIMIT_AS
    data_bytes: int | None = None  # RLIMIT_DATA: a GPU driver reserves far more addresses than it uses memory
    cpu_seconds: int | None = None
    file_bytes: int | None = None
    processes: int | None = None  # threads count; applied only where the sandbox has a process count of its own
    open_files: int | None = None

    def by_name(self) -> dict[str, int]:
        """Map `resource.RLIMIT_…` names without their prefix to values. Core files are always off.

        A core file would hold the teacher.
        """
        names = {
            "address_bytes": "AS",
            "data_bytes": "DATA",
            "cpu_seconds": "CPU",
            "file_bytes": "FSIZE",
            "processes": "NPROC",
            "open_files": "NOFILE",
        }
        limits = {names[name]: value for name, value in asdict(self).items() if value is not None}
        return {**limits, "CORE": 0}


@dataclass(frozen=True, slots=True)
class SandboxPolicy:
    """What one process needs besides Python and its packages."""

    limits: ResourceLimits
    inputs: tuple[Path, ...] = ()  # readable by this process alone; the launcher changes their group
    readable: tuple[Path, ...] = ()  # readable, with permissions left as they are
    writable: Path | None = None  # the only directory the process may write to
    hidden: tuple[Path, ...] = ()  # invisible, even below a path that is readable
    gpu: bool = False
    environment: Mapping[str, str] | None = None  # the whole environment; library paths in it become readable

    def mounts(self, *, own_proc: bool) -> list[Mount]:
        """Return the steps that build the sandbox's file system, in order.

        `own_proc` says whether the sandbox has a /proc of its own; otherwise it gets a few files of the host's.
        """
        steps = [*_system(), *_devices(gpu=self.gpu), *_proc(own=own_proc)]
        steps.append(Mount("directory" if self.writable is None else "world_writable", _TEMPORARY, str(TMPFS_BYTES)))
        visible: list[Path] = [Path(step.path) for step in steps if step.kind == "read"]
        for path in (*_python(), *_libraries(self.environment or {})):
            for name in dict.fromkeys((path, path.resolve())):
                if not any(name.is_relative_to(parent) for parent in visible):
                    visible.append(name)
                    steps.append(Mount("read", str(name), str(path.resolve())))
        resolved = [path.resolve() for path in self.hidden]
        hidden = [path for path in resolved if any(path.is_relative_to(parent) for parent in visible)]
        steps += [Mount("tmpfs", str(path), str(_EMPTY_TMPFS_BYTES)) for path in hidden]
        steps += [Mount("read", str(path), str(path.resolve())) for path in (*self.readable, *self.inputs)]
        if self.writable is not None:
            steps.append(Mount("write", str(self.writable), str(self.writable.resolve())))
        return [*steps, *(Mount("read_only", str(path)) for path in (*hidden, "/dev", "/"))]


def python_path(environment: Mapping[str, str]) -> str:
    """Return the PYTHONPATH of a process without a home directory: our packages, then the entries of ours."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    inherited = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if Path(entry).is_absolute()]
    return os.pathsep.join(dict.fromkeys([str(ROOT), *inherited, *(entry for entry in user if Path(entry).is_dir())]))


def _system() -> Iterator[Mount]:
    """Yield programs, shared libraries and the linker's configuration."""
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
    """Yield /dev with a few harmless devices, shared memory, and what /sys says about processors or GPUs."""
    yield Mount("tmpfs", "/dev", str(_EMPTY_TMPFS_BYTES))
    nodes = [Path("/dev", name) for name in _DEVICES]
    nodes += [node for pattern in _GPU_DEVICES for node in sorted(Path("/dev").glob(pattern))] if gpu else []
    yield from (Mount("device", str(node), str(node)) for node in nodes if node.exists())
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        yield Mount("link", f"/dev/{name}", f"/proc/self/fd/{number}")
    yield Mount("link", "/dev/fd", "/proc/self/fd")
    yield Mount("world_writable", _SHARED_MEMORY, str(TMPFS_BYTES))
    tree = "/sys" if gpu else _PROCESSORS
    if Path(tree).is_dir():
        yield Mount("read", tree, tree)


def _proc(*, own: bool) -> Iterator[Mount]:
    if own:
        yield Mount("proc", "/proc")
        return
    yield Mount("directory", "/proc")
    yield from (Mount("read", f"/proc/{name}", f"/proc/{name}") for name in _PROC_FILES if Path("/proc", name).exists())


def _python() -> list[Path]:
    """Return the interpreter, the libraries it finds and our packages, but not what else lies beside our packages."""
    sites = site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
    names = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sites]
    names += [entry for entry in python_path(os.environ).split(os.pathsep) if Path(entry) != ROOT]
    paths = [Path(name) for name in dict.fromkeys(names) if Path(name).parent != Path(name)]
    return [path for path in (*paths, *(ROOT / name for name in PACKAGES)) if path.is_dir()]


def _libraries(environment: Mapping[str, str]) -> Iterable[Path]:
    names = [*environment.get("LD_LIBRARY_PATH", "").split(os.pathsep), environment.get("CUDA_HOME", "")]
    return [Path(name) for name in names if Path(name).is_absolute() and Path(name).is_dir() and name != "/"]
