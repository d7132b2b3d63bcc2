"""`make demo`: compresses a trained teacher into a small student through the service, without giving it any data.

Trains a teacher on real handwritten digits, starts the service with `dfkd up`, submits over HTTP, downloads the
student and compares both with ONNX Runtime on digits that neither training nor distillation has seen. The exit code is
0 only if the student is within 3 points of its teacher.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import psutil
from digits_teacher import MEAN, SIDE, STD, Digits, accuracy, export_teacher, load_split, train_teacher
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dfkd.cli.display import Follower, show_outcome
from dfkd.client import Client, Unreachable
from dfkd_core.output.evaluate import latency, open_session
from dfkd_core.sandbox.process_tuning import ensure_tuned

LARGEST_LOSS = 0.03  # of accuracy, teacher to student
LEAST_TEACHER = 0.97
START_SECONDS, STOP_SECONDS, JOB_SECONDS = 60.0, 30.0, 270.0
OUTPUT = Path("demo-output")
SPEC = {
    "name": "digits",
    "teacher": {"input": {"shape": [1, SIDE, SIDE], "mean": [MEAN], "std": [STD]}},
    "student": {"architecture": "lenet5_half"},
    "distillation": {
        "seed": 0,
        "budget": {"steps": 400, "max_seconds": 200.0},
        "procedural": {"images_per_round": 2048},
        # This teacher's BatchNorm statistics say much about its digits, so many images are inverted before the updates.
        "method_options": {"bn_weight": 10.0, "warmup_rounds": 20},
    },
}
out = Console(highlight=False)


@dataclass(frozen=True)
class Measured:
    """The measurements of one network with ONNX Runtime."""

    answers: NDArray[np.int64]  # (N,), the class named for every held-out digit
    accuracy: float
    parameters: int
    macs: int
    num_bytes: int
    latency_ms: float


def main() -> int:
    """Run the demo; the exit code says whether the student is good enough."""
    ensure_tuned(threads=2)
    signal.signal(signal.SIGTERM, _terminated)
    started = time.monotonic()
    OUTPUT.mkdir(exist_ok=True)
    training, held_out = load_split()
    make_teacher(training, held_out, OUTPUT / "teacher.onnx")
    with tempfile.TemporaryDirectory(prefix="dfkd-demo-") as scratch, running_service(Path(scratch)) as url:
        compress(url, OUTPUT / "teacher.onnx")
    report = json.loads((OUTPUT / "report.json").read_text())
    teacher = measure(OUTPUT / "teacher.onnx", held_out, report["teacher"])
    student = measure(OUTPUT / "student.onnx", held_out, report["student"])
    out.print(table(teacher, student, num_images=len(held_out.labels)))
    out.print(f"files in {OUTPUT}/, {time.monotonic() - started:.0f} s in all, nothing left running")
    return verdict(teacher, student)


def make_teacher(training: Digits, held_out: Digits, path: Path) -> None:
    """Train and export the teacher."""
    with out.status("training a teacher on real digits"):
        network = train_teacher(training)
        export_teacher(network, path)
    out.print(f"teacher: {accuracy(network, held_out):.2%} on {len(held_out.labels)} held-out digits, in {path}")


@contextmanager
def running_service(scratch: Path) -> Iterator[str]:
    """Run `dfkd up` on a free port; on exit, stop it as Ctrl-C does and check that none of its processes is left."""
    port, log = free_port(), scratch / "service.log"
    command = [Path(sys.executable).with_name("dfkd"), "up", "--port", str(port), "--data-dir", scratch / "data"]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        out.print(f"service: `dfkd up` on {url}")
        yield url
    except BaseException:
        out.print(log.read_text(errors="replace")[-4000:], style="dim", markup=False)
        raise
    finally:
        stop(process)


def free_port() -> int:
    """A TCP port of this host that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the service accepts jobs."""
    ends = time.monotonic() + START_SECONDS
    with Client(url) as client:
        while process.poll() is None and time.monotonic() < ends:
            try:
                if not client.ready().missing:
                    return
            except Unreachable:
                pass
            time.sleep(0.2)
    raise RuntimeError("the service did not start")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT and wait; a process of the service that has to be killed is an error."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGINT)
    ends = time.monotonic() + STOP_SECONDS
    while process.poll() is None and time.monotonic() < ends:
        time.sleep(0.1)
    left = [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
    for member in left:
        member.kill()
    process.wait()
    if left:
        raise RuntimeError(f"{len(left)} processes of the service had to be killed")


def compress(url: str, teacher: Path) -> None:
    """Submit the teacher, follow the job with a progress bar, download the student."""
    with Client(url) as client:
        job = client.submit(teacher, SPEC)
        out.print(f"job: {job.id}, {job.spec['student']['architecture']} without any data")
        with Follower(out) as follower:
            job = client.wait(job.id, timeout_seconds=JOB_SECONDS, on_update=follower.update)
        show_outcome(out, job)
        if job.state != "succeeded":
            raise RuntimeError(f"the job is {job.state}")
        client.download(job.id, OUTPUT)


def measure(path: Path, digits: Digits, facts: dict[str, Any]) -> Measured:  # Any: JSON
    """Measure one ONNX file on the held-out digits; parameters and multiply-adds come from the job's report."""
    session = open_session(path)
    name = session.get_inputs()[0].name
    answers = session.run(None, {name: digits.images.numpy()})[0].argmax(1)
    return Measured(
        answers=answers,
        accuracy=float((answers == digits.labels.numpy()).mean()),
        parameters=facts["parameters"],
        macs=facts["macs"],
        num_bytes=path.stat().st_size,
        latency_ms=latency(path, (1, SIDE, SIDE)).median_ms,
    )


def table(teacher: Measured, student: Measured, *, num_images: int) -> Table:
    """The table that compares teacher and student."""
    agreement = float((teacher.answers == student.answers).mean())
    shown = Table(title=f"{num_images} held-out real digits, ONNX Runtime, one thread", title_justify="left")
    for heading in ("", "teacher", "student", ""):
        shown.add_column(heading, justify="left" if not heading else "right")
    points = 100 * (student.accuracy - teacher.accuracy)
    shown.add_row("accuracy", f"{teacher.accuracy:.2%}", f"{student.accuracy:.2%}", f"{points:+.2f} points")
    shown.add_row("agreement with the teacher", "", f"{agreement:.2%}", "")
    for name, large, small in (
        ("parameters", teacher.parameters, student.parameters),
        ("multiply-adds an image", teacher.macs, student.macs),
        ("bytes", teacher.num_bytes, student.num_bytes),
    ):
        shown.add_row(name, f"{large:,}", f"{small:,}", f"{large / small:.1f} x smaller")
    ratio = teacher.latency_ms / student.latency_ms
    shown.add_row(
        "latency of one image", f"{teacher.latency_ms:.3f} ms", f"{student.latency_ms:.3f} ms", f"{ratio:.1f} x faster"
    )
    return shown


def verdict(teacher: Measured, student: Measured) -> int:
    """The exit code: 0 if both are good enough."""
    if teacher.accuracy < LEAST_TEACHER:
        out.print(f"the teacher itself reached only {teacher.accuracy:.2%}", style="red")
        return 1
    if student.accuracy < teacher.accuracy - LARGEST_LOSS:
        out.print(f"the student is more than {LARGEST_LOSS:.0%} below its teacher", style="red")
        return 1
    return 0


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    sys.exit(main())
