"""What a record says of its measurement: the command, the machine, its threads and memory, and the versions."""

import os
import platform
import resource
import shlex
import sys
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import torch

from dfkd_core.output.provenance import cpu_name


def describe_hardware() -> dict[str, str | int | float]:
    """Return one flat record for the result files and the first lines of a benchmark's output."""
    return {
        "cpu": cpu_name(),
        "cores_visible": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def describe_run(threads: int) -> dict[str, Any]:
    """Return what every record of a run says of its origin, without the file to which it was written."""
    words = ["", *sys.orig_argv[1:]]
    told = [word for before, word in pairwise(words) if word != "--output" and before != "--output"]
    return {
        "command": shlex.join(told),
        "hardware": {**describe_hardware(), "threads": threads},
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "numpy")},
    }


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
