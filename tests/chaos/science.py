"""A science whose result cannot be guessed, for the real runner: `science.py TASK.json`.

Every step hashes the state of the step before; the student is the last state. A checkpoint that was lost, skipped or
mixed up gives another student, as it would in a training, but a job takes two seconds. The seed of the spec says how
the runner misbehaves on the way (its last two digits) and how many megabytes the weights have (the others).
"""

import ctypes
import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dfkd_core.errors import DistillationDiverged, Stopped
from dfkd_core.progress import OnStep, Update
from worker.runner import main
from worker.runner.protocol import Task

STEP_SECONDS = 0.05
CHECKPOINT_STEPS = 5
FATAL_STEP = 12
HOG_BYTES = 8 * 1024**2


def state_after(steps: int, seed: int) -> str:
    """What the student of an undisturbed run holds."""
    state = f"seed {seed}"
    for step in range(1, steps + 1):
        state = _next(state, step)
    return state


def _next(state: str, step: int) -> str:
    return hashlib.sha256(f"{state} {step}".encode()).hexdigest()


def distil(task: Task, on_step: OnStep) -> dict[str, Path]:
    """The chain of states, from the beginning or from a checkpoint, with the mishap of the seed."""
    seed, steps = task.spec.distillation.seed, task.spec.distillation.budget.steps
    mishap = MISHAPS[seed % 100]
    first, state = 0, f"seed {seed}"
    if task.resume_from is not None:
        first, state = json.loads(task.resume_from.read_text())
    on_step(Update("stage", "load"))
    on_step(Update("stage", "distill", first, steps, first / steps))
    for step in range(first + 1, steps + 1):
        mishap(task, step)
        state = _next(state, step)
        stop = on_step(Update("progress", "distill", step, steps, step / steps))
        if stop or step % CHECKPOINT_STEPS == 0:
            _checkpoint(task, on_step, step, state)
        if stop:
            raise Stopped("as asked")
        time.sleep(STEP_SECONDS)
    on_step(Update("stage", "export", steps, steps, 1.0))
    return _files(task, state)


def _checkpoint(task: Task, on_step: OnStep, step: int, state: str) -> None:
    path = task.workspace / f"checkpoint-{step}"
    path.write_text(json.dumps([step, state]))
    on_step(Update("checkpoint", "distill", step, data={"path": str(path)}))


def _files(task: Task, state: str) -> dict[str, Path]:
    weights = f"weights {state} " * (1 + task.spec.distillation.seed // 100 * 1024**2 // 74)
    contents = {"student.onnx": state, "student.safetensors": weights, "report.json": "{}"}
    for name, text in contents.items():
        (task.workspace / name).write_text(text)
    return {name: task.workspace / name for name in contents}


def _nothing(_task: Task, _step: int) -> None:
    """All goes well."""


def _always(harm: Callable[[], object]) -> Callable[[Task, int], None]:
    """In every attempt, at the same step."""

    def strike(_task: Task, step: int) -> None:
        if step == FATAL_STEP:
            harm()

    return strike


def _once(harm: Callable[[], object]) -> Callable[[Task, int], None]:
    """In the first attempt only, which has no checkpoint to go on from."""

    def strike(task: Task, step: int) -> None:
        if step == FATAL_STEP and task.resume_from is None:
            harm()

    return strike


def _spin() -> None:
    """Hold the interpreter and make no step."""
    while True:
        pass


def _sleep_in_c() -> None:
    """Hold the interpreter in a system call."""
    ctypes.PyDLL(None).sleep(10_000)


def _hog() -> None:
    """Take all memory there is."""
    kept = []
    while True:
        kept.append(b"x" * HOG_BYTES)


def _hog_within_a_limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1024**3, 1024**3))
    _hog()


def _kill(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _cuda_out_of_memory() -> None:
    """As PyTorch says it; on a machine without a GPU."""
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory.")


def _diverge() -> None:
    raise DistillationDiverged(f"the loss is NaN at step {FATAL_STEP}", hint="lower the learning rate")


NONE, POISON, SEGFAULT, ABORT, EXIT, SPIN, SLEEP, HOG, LIMITED, DIVERGE, CUDA = range(11)

MISHAPS: dict[int, Callable[[Task, int], None]] = {
    NONE: _nothing,
    POISON: _always(_kill(signal.SIGKILL)),
    SEGFAULT: _once(_kill(signal.SIGSEGV)),
    ABORT: _once(os.abort),
    EXIT: _once(lambda: os._exit(3)),
    SPIN: _once(_spin),
    SLEEP: _once(_sleep_in_c),
    HOG: _always(_hog),
    LIMITED: _always(_hog_within_a_limit),
    DIVERGE: _always(_diverge),
    CUDA: _always(_cuda_out_of_memory),
}

if __name__ == "__main__":
    task = Task.model_validate_json(Path(sys.argv[1]).read_bytes())
    sys.exit(main.run(task, distil))
