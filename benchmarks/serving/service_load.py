"""Measures how much load the service takes: API, database and broker as real processes, requests over loopback.

    python -m benchmarks.serving.service_load [--ledger sqlite | postgresql] [--only polls start ...]
    python -m benchmarks.serving.service_load --only overhead --steps 6000

polls        GET /jobs/{id}: 200 clients, once a second each, then as fast as they can; tables of 100 to 100 000 jobs
faults       the same 200 polls a second beside 10 000 jobs while workers are killed, the broker is stopped, or both
submissions  POST /jobs by the id of a known teacher and with the file, as the table grows; accepted jobs are counted in
             the ledger
upload       POST /teachers of a 268 MB file, beside the same bytes hashed, written and synced
start        from POST /jobs until the first student update is done, as a polling client sees it
overhead     the same job through the service and through `python -m dfkd_core`, side by side, from start to student

This process makes the load. If the machine has four cores, API and runners do not share a core with it.
"""

import argparse
import filecmp
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, insert, select

from benchmarks.hardware import describe_hardware
from benchmarks.serving.large_teacher import large_teacher
from benchmarks.serving.load import Answers, Asked, ask, poll
from dfkd import Client
from jobs.db import tables
from tests.e2e.service import JOB_SECONDS, spec, stop
from tests.e2e.teacher import write_teacher
from tests.servers import Redis, all_tenants_engine, running_postgres, running_redis

RESULTS = Path(__file__).resolve().parents[1] / "results"
CLIENTS = 200
TABLES = (100, 1_000, 10_000, 100_000)
BUSY_TABLE = 10_000
TURNS = 5
EVENTS = 8  # in the history of every job that fills a table


class Bench:
    """A data directory, its ledger, and the processes that were started on it."""

    def __init__(self, directory: Path, stack: ExitStack, ledger: str) -> None:
        self.directory = directory
        self.ledger = ledger
        (directory / "data").mkdir(parents=True)
        self.teacher = write_teacher(directory / "teacher.onnx")
        self.broker = stack.enter_context(running_redis())
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DFKD_")},
            "DFKD_DATA_DIR": str(directory / "data"),
            "DFKD_BROKER_URL": self.broker.url,
            "DFKD_WORKER_THREADS": "1",
        }
        self.database_url = f"sqlite:///{directory / 'data' / 'ledger.sqlite3'}"
        if ledger == "postgresql":
            self.database_url = stack.enter_context(running_postgres()).url()
            self.environment["DFKD_DATABASE_URL"] = self.database_url

    def another(self, name: str, stack: ExitStack) -> "Bench":
        """Return a bench with a ledger of its own, below the directory of this one."""
        return Bench(self.directory / name, stack, self.ledger)

    @contextmanager
    def api(self, **environment: str) -> Iterator[str]:
        """Yield an API process; its URL."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with self.process("-m", "service", "--port", str(port), **environment):
            url = f"http://127.0.0.1:{port}"
            with Client(url) as client:
                client.jobs()  # waits for the API
            yield url

    @contextmanager
    def worker(self, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Yield a worker process."""
        with self.process("-m", "worker", **environment) as process:
            yield process

    @contextmanager
    def process(self, *words: str, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *words], env={**self.environment, **environment}, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            stop(process)

    def fill(self, url: str, jobs: int) -> list[str]:
        """Copy one cancelled job until the table has `jobs` jobs; return the ids of the copies."""
        with Client(url) as client:
            model = client.submit(self.teacher, spec())
            client.cancel(model.id)
        engine = all_tenants_engine(self.database_url)
        with engine.begin() as connection:
            row = dict(connection.execute(select(tables.jobs).where(tables.jobs.c.id == model.id)).one()._mapping)
            (number,) = connection.execute(select(func.max(tables.jobs.c.number))).one()
            events = [
                dict(line._mapping)
                for line in connection.execute(select(tables.events).where(tables.events.c.job_number == row["number"]))
            ]
            ids = [str(uuid.uuid4()) for _ in range(jobs - number)]
            for first in range(0, len(ids), 1000):
                numbered = list(enumerate(ids[first : first + 1000], start=number + 1 + first))
                connection.execute(insert(tables.jobs), [{**row, "number": n, "id": job_id} for n, job_id in numbered])
                lines = [
                    {**events[seq % len(events)], "job_number": n, "seq": seq + 1}
                    for n, _ in numbered
                    for seq in range(EVENTS)
                ]
                connection.execute(insert(tables.events), lines)
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(
                    "SELECT setval(pg_get_serial_sequence('jobs', 'number'), max(number)) FROM jobs"
                )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:  # as if grown slowly
            sqlite = connection.dialect.name == "sqlite"
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)" if sqlite else "VACUUM ANALYZE")
        engine.dispose()
        return ids or [model.id]

    def count(self) -> int:
        """Jobs in the ledger."""
        engine = all_tenants_engine(self.database_url)
        with engine.connect() as connection:
            counted = connection.execute(select(func.count()).select_from(tables.jobs)).scalar_one()
        engine.dispose()
        return int(counted)


def lag_of(url: str) -> dict[str, float]:
    """Delays of the API's event loop since its start, from /metrics: counts by upper bound in seconds."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return {
        sample.labels["le"]: sample.value for sample in samples if sample.name == "dfkd_event_loop_lag_seconds_bucket"
    }


def polls(bench: Bench, seconds: float) -> dict[str, Any]:
    """For each size of the table, measure polls at a fixed rate and the largest rate that the API can answer.

    The latter is measured in turns, with a service for each size, because a machine's speed may change within a minute.
    """
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        services = {}
        for size in TABLES:
            own = bench.another(str(size), stack)
            url = stack.enter_context(own.api())
            services[size] = (url, [f"/jobs/{job_id}" for job_id in own.fill(url, size)])
        for size, (url, paths) in services.items():
            before = lag_of(url)
            paced = poll(url, paths, clients=CLIENTS, seconds=seconds, interval=1.0)
            lag = {bound: count - before[bound] for bound, count in lag_of(url).items()}
            found[str(size)] = {"paced": paced.record(), "event loop lag, s": lag, "flat out": []}
            print_line(f"{size} jobs, {CLIENTS} polls/s", paced)
        for _ in range(TURNS):
            for size, (url, paths) in services.items():
                flat_out = poll(url, paths, clients=16, seconds=seconds / TURNS, interval=0.0)
                found[str(size)]["flat out"].append(flat_out.record())
                print_line(f"{size} jobs, flat out", flat_out)
    for size in TABLES:
        rates = [turn["answers per second"] for turn in found[str(size)]["flat out"]]
        print(f"{size} jobs, flat out: {fmean(rates):.0f} ± {stdev(rates):.0f} polls/s")
    return found


def faults(bench: Bench, seconds: float) -> dict[str, Any]:
    """Measure polls at a fixed rate during faults of workers and broker."""
    found = {}
    with bench.api(DFKD_LEASE_SECONDS="6", DFKD_HEARTBEAT_SECONDS="1.5", DFKD_SWEEP_SECONDS="1") as url:
        paths = [f"/jobs/{job_id}" for job_id in bench.fill(url, BUSY_TABLE)]
        with Client(url) as client:
            teacher = client.upload(bench.teacher).id
            client.submit(teacher, spec(steps=100_000))
        troubles: dict[str, Callable[[threading.Event], None]] = {
            "nothing runs": lambda over: None,
            "a job runs": partial(_with_worker, bench),
            "workers are killed": partial(_killing_workers, bench),
            "the broker hangs, jobs are submitted": partial(_hanging_broker, bench.broker, url, teacher),
        }
        for name, trouble in troubles.items():
            over = threading.Event()
            thread = threading.Thread(target=trouble, args=(over,))
            thread.start()
            try:
                answers = poll(url, paths, clients=CLIENTS, seconds=seconds, interval=1.0)
            finally:
                over.set()
                thread.join()
            found[name] = answers.record()
            print_line(name, answers)
    return found


def _with_worker(bench: Bench, over: threading.Event) -> None:
    with bench.worker(DFKD_LEASE_SECONDS="6", DFKD_HEARTBEAT_SECONDS="1.5"):
        over.wait()


def _killing_workers(bench: Bench, over: threading.Event) -> None:
    while not over.is_set():
        with bench.worker(DFKD_LEASE_SECONDS="6", DFKD_HEARTBEAT_SECONDS="1.5", DFKD_MAX_CRASHES="50") as worker:
            over.wait(5.0)
            worker.kill()


def _hanging_broker(broker: Redis, url: str, teacher: str, over: threading.Event) -> None:
    process = psutil.Process(broker.pid)
    process.suspend()
    try:
        with Client(url) as client:
            while not over.wait(1.0):
                client.submit(teacher, spec())
    finally:
        process.resume()


def submissions(bench: Bench, seconds: float) -> dict[str, Any]:
    """For each size of the table, measure accepted jobs per second and check that each of them is in the ledger."""
    found: dict[str, Any] = {}
    with bench.api() as url:
        with Client(url) as client:
            teacher = client.upload(bench.teacher).id
        known = spec() | {"teacher": {"id": teacher}}
        by_id = partial(Asked, "POST", "/jobs", json.dumps(known).encode())
        with_file = partial(Asked, "POST", "/jobs", *_multipart(bench.teacher.read_bytes(), spec()))
        for size in TABLES:
            bench.fill(url, size)
            for name, request, clients in ("by id", by_id, 16), ("with the file", with_file, 4):
                before = bench.count()
                answers = ask(url, request, clients=clients, seconds=seconds / 2)
                accepted = answers.statuses.get(202, 0)
                record = answers.record() | {"accepted": accepted, "in the ledger": bench.count() - before}
                found.setdefault(str(size), {})[name] = record
                print_line(f"{size} jobs, submissions {name}", answers)
                assert record["in the ledger"] == accepted, record
    return found


def _multipart(teacher: bytes, document: Mapping[str, Any]) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    parts = b""
    for name, media_type, body in (
        ("spec", "application/json", json.dumps(document).encode()),
        ("teacher", "application/octet-stream", teacher),
    ):
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        parts += head.encode() + f"Content-Type: {media_type}\r\n\r\n".encode() + body + b"\r\n"
    return parts + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def upload(bench: Bench, seconds: float) -> dict[str, Any]:
    """Seconds for the upload of a large teacher and for writing the same bytes to the same disk, repeatedly."""
    del seconds
    runs = []
    with bench.api() as url:
        for seed in range(3):
            path = large_teacher(bench.directory / "large.onnx", seed)
            size = path.stat().st_size
            written = _written(path, bench.directory / "copy")
            begun = time.monotonic()
            with path.open("rb") as file:
                answer = httpx.post(
                    f"{url}/teachers",
                    content=_counted(file, sent := {"at": 0.0}),
                    headers={"content-type": "application/octet-stream", "content-length": str(size)},
                    timeout=120,
                )
            ended = time.monotonic()
            assert answer.status_code == 201, answer.text
            runs.append({"bytes": size, "written": written, "sent": sent["at"] - begun, "answered": ended - begun})
            print(runs[-1], flush=True)
    return {"runs": runs}


def _counted(file: Any, sent: dict[str, float]) -> Iterator[bytes]:
    while chunk := file.read(1 << 20):
        yield chunk
    sent["at"] = time.monotonic()


def _written(source: Path, target: Path) -> float:
    begun = time.monotonic()
    digest = hashlib.sha256()
    with source.open("rb") as file, target.open("wb") as copy:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    seconds = time.monotonic() - begun
    target.unlink()
    return seconds


def start(bench: Bench, seconds: float) -> dict[str, Any]:
    """Seconds from POST to the first student update, with an idle worker."""
    del seconds
    delays = []
    with bench.api() as url, bench.worker(), Client(url) as client:
        for seed in range(5):
            begun = time.monotonic()
            job = client.submit(bench.teacher, spec(steps=2000, seed=seed))
            while client.job(job.id).progress.step == 0:
                time.sleep(0.02)
            delays.append(time.monotonic() - begun)
            client.cancel(job.id)
            client.wait(job.id, timeout_seconds=JOB_SECONDS)
    print(f"first update after {fmean(delays):.2f} ± {stdev(delays):.2f} s", flush=True)
    return {"seconds": delays}


def overhead(bench: Bench, steps: int) -> dict[str, Any]:
    """Run the same job through the service and without it at the same time, so that both have the same machine."""
    document = spec(steps=steps)
    path = bench.directory / "spec.json"
    path.write_text(json.dumps(document))
    command = [sys.executable, "-m", "dfkd_core", str(bench.teacher), "--spec", str(path), "--threads", "1"]

    def run_alone() -> float:
        begun = time.monotonic()
        subprocess.run([*command, "-o", str(bench.directory / "student.onnx")], check=True, stderr=subprocess.DEVNULL)
        return time.monotonic() - begun

    with bench.api() as url, bench.worker(), Client(url) as client, ThreadPoolExecutor(1) as pool:
        without = pool.submit(run_alone)
        begun = time.monotonic()
        job = client.wait(client.submit(bench.teacher, document).id, timeout_seconds=3 * 3600)
        served = time.monotonic() - begun
        client.download(job.id, bench.directory / "served")
        alone = without.result()
    equal = filecmp.cmp(bench.directory / "served" / "student.onnx", bench.directory / "student.onnx", shallow=False)
    print(
        f"alone {alone:.1f} s, through the service {served:.1f} s: {100 * (served / alone - 1):+.1f} %; equal: {equal}"
    )
    return {"steps": steps, "alone": alone, "served": served, "students equal": equal}


def print_line(name: str, answers: Answers) -> None:
    """Print one line of the table."""
    record = answers.record()
    figures = ", ".join(f"{key} {value}" for key, value in record.items() if key != "answers")
    print(f"{name}: {figures}", flush=True)


PARTS: dict[str, Callable[[Bench, float], dict[str, Any]]] = {
    "polls": polls,
    "faults": faults,
    "submissions": submissions,
    "upload": upload,
    "start": start,
}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "overhead"], default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--steps", type=int, default=20_000, help="student updates of the overhead's job")
    parser.add_argument("--output", type=Path, default=RESULTS / "service_load.json")
    arguments = parser.parse_args()
    records = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name in arguments.only:
        print(f"== {name}, {arguments.ledger}")
        with tempfile.TemporaryDirectory(prefix="dfkd-load-") as scratch, ExitStack() as stack:
            bench = Bench(Path(scratch), stack, arguments.ledger)
            measured = overhead(bench, arguments.steps) if name == "overhead" else PARTS[name](bench, arguments.seconds)
        records.setdefault(arguments.ledger, {})[name] = {"hardware": describe_hardware(), **measured}
        arguments.output.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
