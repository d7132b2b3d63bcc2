"""How many processes the kernel has killed because memory ran out, as far as this host shows it."""

from pathlib import Path

_COUNTERS = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
    Path("/proc/vmstat"),
)


def num_oom_kills() -> int:
    """Sum the `oom_kill` counters of our control group and of the host. Only a rise of the sum has a meaning."""
    return sum(_counter(path) for path in _COUNTERS)


def _counter(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else 0
