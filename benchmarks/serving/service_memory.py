"""Measures the resident memory of API, worker, Redis and runner while a job runs.

    python -m benchmarks.serving.service_memory --steps 400

Starts `dfkd up`, uploads the MNIST teacher of benchmarks/teachers.py over HTTP, follows the job with a polling client
and samples every process of the service until the job has ended.
"""

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import save_file

from benchmarks.datasets import NORMALISATIONS
from benchmarks.hardware import describe_hardware
from benchmarks.teachers import load_demonstration_teacher
from dfkd.client import Client, Unreachable

RESULTS = Path(__file__).resolve().parents[1] / "results"
SAMPLE_SECONDS = 0.1


def role_of(process: psutil.Process, api: int) -> str:
    """Return the part of the service that a process is, by its command line."""
    command = " ".join(process.cmdline())
    if process.pid == api:
        return "API"
    names = {"worker.runner.main": "runner", "inspection": "inspection", "redis": "Redis", "valkey": "Redis"}
    return next((role for sign, role in names.items() if sign in command), "worker")


def sample(api: int, peaks: dict[str, int], over: threading.Event) -> None:
    """Record the largest resident set of every role until the stop event."""
    while not over.wait(SAMPLE_SECONDS):
        for process in [psutil.Process(api), *psutil.Process(api).children(recursive=True)]:
            try:
                role, resident = role_of(process, api), process.memory_info().rss
            except psutil.Error:  # the process ended between the listing and the sample
                continue
            peaks[role] = max(peaks.get(role, 0), resident)


def wait_until_ready(client: Client) -> None:
    """Return when the service accepts jobs."""
    for _ in range(300):
        try:
            if not client.ready().missing:
                return
        except Unreachable:
            pass
        time.sleep(0.2)
    raise RuntimeError("the service did not start")


def measure(steps: int) -> dict[str, Any]:
    """Peak resident bytes by role, and how the job ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="dfkd-memory-") as scratch:
        teacher = Path(scratch) / "teacher.safetensors"
        save_file(load_demonstration_teacher("mnist-lenet5").network.state_dict(), teacher)
        command = [Path(sys.executable).with_name("dfkd"), "up", "--port", str(port), "--data-dir", f"{scratch}/data"]
        service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peaks: dict[str, int] = {}
        over = threading.Event()
        watcher = threading.Thread(target=sample, args=(service.pid, peaks, over))
        try:
            with Client(f"http://127.0.0.1:{port}") as client:
                wait_until_ready(client)
                watcher.start()
                job = client.submit(teacher, spec(steps))
                job = client.wait(job.id, timeout_seconds=1800)
        finally:
            over.set()
            if watcher.is_alive():
                watcher.join()
            service.send_signal(signal.SIGINT)
            service.wait(timeout=60)
    return {"steps": steps, "state": job.state, "peak_resident_bytes": peaks}


def spec(steps: int) -> dict[str, Any]:
    """Return the menu's defaults for a named teacher."""
    facts = {"shape": [1, 32, 32], "mean": list(NORMALISATIONS["mnist"].mean), "std": list(NORMALISATIONS["mnist"].std)}
    return {
        "teacher": {"format": "safetensors", "architecture": "lenet5", "input": facts, "num_classes": 10},
        "student": {"architecture": "lenet5_half"},
        "distillation": {"budget": {"steps": steps}},
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--output", type=Path, default=RESULTS / "service_memory.json")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    measured = measure(arguments.steps)
    for role, resident in sorted(measured["peak_resident_bytes"].items()):
        print(f"{role}: {resident / 1e6:.0f} MB")
    arguments.output.write_text(json.dumps({"hardware": describe_hardware(), **measured}, indent=1) + "\n")
    print(f"job {measured['state']}; written to {arguments.output}")


if __name__ == "__main__":
    main()
