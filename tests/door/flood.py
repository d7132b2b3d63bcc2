"""`python -m tests.door.flood`: a flood of bad inputs while a good tenant polls; the exit status is the verdict."""

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.door.door import Door, Input
from tests.door.inputs import INPUTS
from tests.door.table import TABLE
from tests.door.transport import IDLE_SECONDS, LIMIT
from tests.service.harness import running_service

PER_SECOND = 50
CLIENTS = 24
MODEL_CLIENTS = 6
MODELS = {"safetensors", "ONNX"}  # what is inspected in a child
POLL_SECONDS = 0.02
WARM_UP_SECONDS = 5.0
LIMIT_P99_SECONDS = 0.5
LIMIT_GROWTH_BYTES = 100 * 10**6

UNFIT = {"B-013", "B-025", "B-026", "B-011", "B-079", "O-01"}
"""Inputs that hold a client for seconds by intent, or that need the server for themselves to be judged."""


def mixed(seed: int, groups: set[str]) -> Iterator[Input]:
    """Refused inputs of every row of these groups in turn, each row as often as any other."""
    chance = random.Random(seed)
    rows: dict[str, list[Input]] = {}
    for entry in INPUTS:
        if (
            entry.refused
            and not entry.slow
            and not entry.guarded
            and entry.row not in UNFIT
            and TABLE[entry.row].group in groups
        ):
            rows.setdefault(entry.row, []).append(entry)
    while True:
        for entries in rows.values():
            yield chance.choice(entries)


def flooded(door: Door, *, seconds: float, per_second: float = PER_SECOND, seed: int = 20) -> dict[str, Any]:
    """Figures of one flood: the good tenant's waiting times, the service's memory, what became of the inputs."""
    job_id = door.queued_job()
    waits: list[float] = []
    over = threading.Event()

    def poll() -> None:
        with httpx.Client(base_url=door.service.url, timeout=30) as client:
            while not over.is_set():
                began = time.perf_counter()
                assert client.get(f"/jobs/{job_id}").status_code == 200
                waits.append(time.perf_counter() - began)
                over.wait(POLL_SECONDS)

    Flood(door, seed + 1).run(seconds=WARM_UP_SECONDS, per_second=per_second)
    before = door.memory_bytes()
    poller = threading.Thread(target=poll)
    poller.start()
    began = time.perf_counter()
    flood = Flood(door, seed)
    flood.run(seconds=seconds, per_second=per_second)
    took = time.perf_counter() - began
    over.set()
    poller.join()
    ordered = np.sort(np.array(waits))
    return {
        "inputs": dict(flood.sent),
        "wanted_per_second": per_second,
        "sent_per_second": round(flood.sent.total() / took, 1),
        "answered_otherwise": flood.wrong,
        "polls": len(waits),
        "poll_p50_ms": round(float(np.quantile(ordered, 0.5)) * 1e3, 1),
        "poll_p99_ms": round(float(np.quantile(ordered, 0.99)) * 1e3, 1),
        "poll_max_ms": round(float(ordered[-1]) * 1e3, 1),
        "memory_before_bytes": before,
        "memory_growth_bytes": door.memory_bytes() - before,
    }


class Flood:
    """Inputs at a steady rate. Every fifth is a model, while fewer than MODEL_CLIENTS wait for their inspection."""

    def __init__(self, door: Door, seed: int) -> None:
        self.sent: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._door = door
        self._models = mixed(seed, MODELS)
        self._others = mixed(seed, {row.group for row in TABLE.values()} - MODELS)
        self._free = threading.Semaphore(MODEL_CLIENTS)

    def run(self, *, seconds: float, per_second: float) -> None:
        """For so long."""
        began = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            for number in range(round(seconds * per_second)):
                time.sleep(max(0.0, began + number / per_second - time.perf_counter()))
                if number % 5 == 0 and self._free.acquire(blocking=False):
                    pool.submit(self._send, next(self._models)).add_done_callback(lambda _: self._free.release())
                else:
                    pool.submit(self._send, next(self._others))

    def _send(self, entry: Input) -> None:
        self.sent[TABLE[entry.row].group] += 1
        try:
            status = entry.send(self._door.another()).status
        except httpx.TransportError:  # the connection was cut in mid-upload, which is an answer, too
            status = None
        if status not in (entry.status, None):
            self.wrong.append(f"{entry.row} {entry.what}: {status}")


def verdict(figures: dict[str, Any]) -> list[str]:
    """What was promised and not kept."""
    broken = []
    if figures["poll_p99_ms"] > LIMIT_P99_SECONDS * 1e3:
        broken.append(f"p99 of the good tenant is {figures['poll_p99_ms']} ms")
    if figures["memory_growth_bytes"] > LIMIT_GROWTH_BYTES:
        broken.append(f"memory grew by {figures['memory_growth_bytes']} bytes")
    return broken


def measured(*, seconds: float, per_second: float) -> dict[str, Any]:
    """The figures of a flood on a service of its own, and what was broken."""
    from benchmarks.hardware import describe_hardware

    limits = {"DFKD_MAX_UPLOAD_BYTES": str(LIMIT), "DFKD_UPLOAD_IDLE_SECONDS": str(IDLE_SECONDS)}
    with (
        tempfile.TemporaryDirectory(prefix="dfkd-flood-") as directory,
        running_service(Path(directory) / "data", **limits) as service,
    ):
        figures = flooded(Door(service), seconds=seconds, per_second=per_second)
    load = os.getloadavg()[0]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": describe_hardware(),
        "load": round(load, 1),
        "seconds": seconds,
        **figures,
        "broken": verdict(figures),
    }


def main() -> int:
    """Measure, and say it."""
    parser = argparse.ArgumentParser(prog="python -m tests.door.flood", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--per-second", type=float, default=PER_SECOND)
    parser.add_argument("--update", action="store_true", help="write it into the results and the page of `make door`")
    given = parser.parse_args()
    result = measured(seconds=given.seconds, per_second=given.per_second)
    if given.update:
        from tests.door import page

        page.keep({"flood": result})
    sys.stdout.write(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 1 if result["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
