"""Run the real runner, which follows a script instead of training: `scripted_runner.py ACT TASK.json`.

A checkpoint holds the number of steps done, so that a resumed run can be told from a fresh one.
"""

import errno
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dfkd_core.errors import CheckpointMismatch, DistillationDiverged, Stopped
from dfkd_core.progress import OnStep, Update
from worker.runner import main
from worker.runner.protocol import Task

STEPS = 20
STEP_SECONDS = 0.02
MEASURED = {
    "max_abs_diff": 2e-7,
    "tolerance": 1e-4,
    "batches": [1, 2, 7],
    "gradient_error": 1e-8,
    "dead_input_fraction": 0.0,
    "outputs": "logits",
}
DEPTH = {"passed": True, "checked_by": "0.0", "measured": MEASURED}


def done(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Count to STEPS with a checkpoint every five steps. The report says at which step this run began."""
    first = int(task.resume_from.read_text()) if task.resume_from else 0
    on_step(Update("stage", "load"))
    on_step(Update("depth", "inspect", data=DEPTH))
    for step in range(first + 1, STEPS + 1):
        stop = on_step(Update("progress", "distill", step, STEPS, step / STEPS))
        if step == 7:
            on_step(Update("published", "distill", step, STEPS, step / STEPS, 0.75, step, {"agreement": 0.75}))
        if stop or step % 5 == 0:
            checkpoint(task, on_step, step)
        if stop:
            raise Stopped("as asked")
        time.sleep(STEP_SECONDS)
    warning = {"code": "slow-day", "detail": "nothing to worry about", "hint": None}
    on_step(Update("warning", "verify", STEPS, STEPS, 1.0, data=warning))
    return files(task, student=f"student of {STEPS} steps", report=json.dumps({"began_at": first}))


def slow(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Do what `done` does, in a few seconds."""

    def pausing(update: Update) -> bool:
        time.sleep(0.1)
        return on_step(update)

    return done(task, pausing)


def rescored(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Publish a student at step 2, and report ever lower agreements of that student until there is a file `enough`."""
    on_step(Update("stage", "distill", 0, STEPS))
    on_step(Update("progress", "distill", 1, STEPS, 1 / STEPS))
    on_step(Update("published", "distill", 2, STEPS, 2 / STEPS, agreement=0.9, published_step=2))
    for number in itertools.count(2):
        if (task.workspace / "enough").exists():
            break
        time.sleep(STEP_SECONDS)
        agreement = 0.7 + 0.2 / number  # lower each time, however long the test takes to see it
        on_step(Update("progress", "distill", 3, STEPS, 3 / STEPS, agreement=agreement, published_step=2))
    on_step(Update("progress", "distill", STEPS, STEPS, 1.0, agreement=0.7, published_step=2))
    on_step(Update("stage", "export", fraction=1.0))
    return files(task)


def checkpoint(task: Task, on_step: OnStep, step: int) -> None:
    path = task.workspace / f"checkpoint-{step}"
    path.write_text(str(step))
    on_step(Update("checkpoint", "distill", step, data={"path": str(path)}))


def files(task: Task, *, student: str = "student", report: str = "{}") -> dict[str, Path]:
    contents = {"student.onnx": student, "student.safetensors": "weights", "report.json": report}
    if task.spec.export.samples:
        contents["samples.png"] = "samples"
    for name, text in contents.items():
        (task.workspace / name).write_text(text)
    return {name: task.workspace / name for name in contents}


def endless(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Step until told to stop, then write a checkpoint."""
    step = 0
    while not on_step(Update("progress", "distill", step, 10**9)):
        step += 1
        time.sleep(STEP_SECONDS)
    checkpoint(task, on_step, step)
    raise Stopped("as asked")


def loading(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Stay in the stage before the distillation for ever."""
    on_step(Update("stage", "load"))
    while True:
        time.sleep(STEP_SECONDS)


def deaf(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Step for ever, also after a request to stop."""
    step = 0
    while True:
        on_step(Update("progress", "distill", step, 10**9))
        step += 1
        time.sleep(STEP_SECONDS)


def hung(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Report the same step again and again."""
    while True:
        on_step(Update("progress", "distill", 1, STEPS))
        time.sleep(STEP_SECONDS)


def crash(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Die at step 12 with a segmentation fault. A resumed run succeeds."""
    if task.resume_from is None:

        def dying(update: Update) -> bool:
            if update.step == 12:
                os.kill(os.getpid(), 11)
            return on_step(update)

        return done(task, dying)
    return done(task, on_step)


def nonsense(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Report an impossible finding about the teacher."""
    on_step(Update("depth", "inspect", data={"passed": True, "measured": {**MEASURED, "dead_input_fraction": 7}}))
    return done(task, lambda update: False if update.kind == "depth" else on_step(update))


def poison(task: Task, on_step: OnStep) -> dict[str, Path]:
    os._exit(3)


def diverge(task: Task, on_step: OnStep) -> dict[str, Path]:
    on_step(Update("stage", "distill", 3, STEPS))
    raise DistillationDiverged("the loss is NaN at step 3", hint="lower the learning rate")


def unforeseen(task: Task, on_step: OnStep) -> dict[str, Path]:
    raise ValueError(f"secret path {task.workspace}")


def exhausted(task: Task, on_step: OnStep) -> dict[str, Path]:
    raise MemoryError


def full_disk(task: Task, on_step: OnStep) -> dict[str, Path]:
    raise OSError(errno.ENOSPC, "no space")


def foreign(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Refuse every checkpoint."""
    if task.resume_from is not None:
        raise CheckpointMismatch("written elsewhere")
    return done(task, on_step)


def garbage(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Send lines that are no valid messages, then do a good run."""
    lines = [
        b"\xff\xfe\x00",
        b"[" * 5000,
        b"{}",
        b'{"type": "done"}',
        b'{"type": "update", "kind": "stage", "stage": 7}',
    ]
    lines += [b'{"type": "update", "kind": "progress", "stage": "distill", "fraction": 2.0}', b"x" * 300_000]
    lines += [b'{"type": "stopped", "more": 1}', b'{"type": "error", "code": "NOT A CODE", "detail": "d"}', b""]
    for line in lines:
        rest = line + b"\n"
        while rest:
            rest = rest[os.write(task.messages_fd, rest) :]
    return done(task, on_step)


def flood(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Report thousands of events."""
    for step in range(3000):
        on_step(Update("published", "distill", step, STEPS, 0.5, 0.5, step, {"agreement": 0.5, "padding": "x" * 5000}))
    return done(task, on_step)


def thief(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Offer a file of the host as a checkpoint and as the student."""
    on_step(Update("checkpoint", "distill", 1, STEPS, data={"path": str(task.teacher_path)}))
    return {**files(task), "student.onnx": task.teacher_path}


def incomplete(task: Task, on_step: OnStep) -> dict[str, Path]:
    return {"student.onnx": files(task)["student.onnx"]}


def generous(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Deliver synthetic images that nobody asked for."""
    (task.workspace / "samples.png").write_text("samples")
    return {**files(task), "samples.png": task.workspace / "samples.png"}


def liar(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Change a file after its digest was taken and before the message announces it."""
    produced = files(task)
    real = os.write

    def announce(descriptor: int, line: bytes) -> int:
        produced["student.onnx"].write_text("another student")
        return real(descriptor, line)

    os.write = announce  # type: ignore[assignment]
    return produced


def parent(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Leave a grandchild behind and report a word of its command line; its process id differs outside the sandbox."""
    word = f"600.{time.monotonic_ns()}"
    subprocess.Popen(["sleep", word], stdout=subprocess.DEVNULL)
    return files(task, report=json.dumps({"grandchild": word}))


def tell(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Report the environment and the limits of this process."""
    import resource

    facts = {
        "environment": dict(os.environ),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "session": os.getsid(0) == os.getpid(),
        "spec": json.loads(task.spec.model_dump_json()),
        "threads": task.threads,
    }
    sys.stdout.write("x" * 10_000_000)
    return files(task, report=json.dumps(facts))


def tell_task(task: Task, on_step: OnStep) -> dict[str, Path]:
    """Report the checkpoint of this run, the budget under which it was written, and the tries of bfloat16."""
    began_at = task.resume_from.read_text() if task.resume_from else None
    budget = task.continued_budget and task.continued_budget.model_dump()
    told = {"began_at": began_at, "continued_budget": budget, "bf16_tries": task.bf16_tries}
    return files(task, report=json.dumps(told))


ACTS: dict[str, Callable[[Task, OnStep], dict[str, Path]]] = {
    "done": done,
    "slow": slow,
    "rescored": rescored,
    "endless": endless,
    "deaf": deaf,
    "loading": loading,
    "hung": hung,
    "crash": crash,
    "nonsense": nonsense,
    "poison": poison,
    "diverge": diverge,
    "unforeseen": unforeseen,
    "exhausted": exhausted,
    "full_disk": full_disk,
    "foreign": foreign,
    "garbage": garbage,
    "flood": flood,
    "thief": thief,
    "generous": generous,
    "incomplete": incomplete,
    "liar": liar,
    "parent": parent,
    "tell": tell,
    "tell_task": tell_task,
}

if __name__ == "__main__":
    task = Task.model_validate_json(Path(sys.argv[2]).read_bytes())
    sys.exit(main.run(task, ACTS[sys.argv[1]]))
