"""Set up a process that trains before it starts: how threads wait, memory, number of threads, and the parent's death.

OpenMP and malloc read their settings once, when a process starts; changing them later has no effect. So the supervisor
puts them into the environment of its runner, and a command line that trains in its own process executes itself again.

`python -m dfkd_core.sandbox.process_tuning PARENT PROGRAM ARGUMENT...` executes PROGRAM, which then dies together with
the process PARENT. This module never imports torch.
"""

import os
import sys
from collections.abc import Mapping

from dfkd_core.sandbox import syscalls

TUNED = "DFKD_TUNED_THREADS"
_MALLOC_BYTES = 256 * 1024**2

# Measured with a 32-filter generator, LeNet-5 and its half, batch 64, 2 threads on 2 shared cores: 0.39 steps a second
# with nothing set, 1.03 with waiting threads that never spin, 1.34 with the two malloc settings as well (page faults of
# a step 24 800 -> 0), peak memory 486 -> 506 MB. At batch 256: 741 -> 1014 MB, 1.7 times faster.
# Waking a sleeping thread takes as long as a small layer. With 1 000 spins before it sleeps, updates of four students
# take 0.70 to 0.87 of the time on idle cores, and 1.03 to 1.18 times as long beside a process that keeps one of the two
# cores busy; 5 000 spins bring little more and cost up to 1.87 times there (benchmarks.planning.waiting_threads).
_DEFAULTS = {
    "OMP_WAIT_POLICY": "PASSIVE",  # a waiting thread sleeps soon; spinning ones starve each other on shared cores
    "GOMP_SPINCOUNT": "1000",
    "MALLOC_MMAP_THRESHOLD_": str(_MALLOC_BYTES),  # buffers of a step are kept, not given back and faulted in again
    "MALLOC_TRIM_THRESHOLD_": str(_MALLOC_BYTES),
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS is deterministic only with a fixed workspace
}


def tuned_environment(base: Mapping[str, str], *, threads: int) -> dict[str, str]:
    """Return `base` and the settings that a training process must find at its start.

    Settings of `base` about waiting and memory stay. Thread counts and the hash seed are always overwritten, because
    two runs are equal only if these are.
    """
    fixed = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONHASHSEED": "0"}
    return {**_DEFAULTS, **base, **fixed, TUNED: str(threads)}


def ensure_tuned(threads: int) -> None:
    """Execute this interpreter again with the tuned environment. Return at once if the environment is tuned already."""
    if os.environ.get(TUNED) == str(threads):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, arguments, tuned_environment(os.environ, threads=threads))  # noqa: S606


def main() -> None:
    """Execute the program that the command line names, bound to the life of the parent that it names."""
    parent, program, *arguments = sys.argv[1:]
    syscalls.die_with(int(parent))
    os.execvp(program, [program, *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
