"""Which files of a tree are entered by one `POST /jobs`, from a claim to the publication, and by one student update.

Every process of the service is started with a `sitecustomize` module that notes the file of each function that is
called, while a switch says which part is running. Functions that run because a module is loaded count as well.
"""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

PATIENCE_SECONDS = 300.0
BUDGET = {"steps": 8}
SITE = """
import mmap, os, sys, threading
FOLDER = {folder!r}
TREE = {tree!r}
with open(os.path.join(FOLDER, "switch"), "r+b") as file:
    SWITCH = mmap.mmap(file.fileno(), 1)
SEEN = set()
def note(frame, event, argument):
    part = SWITCH[0]
    if part and event == "call":
        code = frame.f_code
        if code.co_flags & 1 and code.co_filename.startswith(TREE) and (part, code.co_filename) not in SEEN:
            SEEN.add((part, code.co_filename))
            with open(os.path.join(FOLDER, f"{{part}}.{{os.getpid()}}"), "a") as file:
                file.write(code.co_filename[len(TREE):] + "\\n")
threading.setprofile(note)
sys.setprofile(note)
"""
UPDATE = """
import json, runpy, sys
from collections import defaultdict
import torch.optim.optimizer as optimizers
TREE, REPORT, FILE = sys.argv[1:4]
size_of = lambda optimizer: sum(p.numel() for group in optimizer.param_groups for p in group["params"])
entered, found, last = set(), defaultdict(set), [None]
def note(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_flags & 1 and code.co_filename.startswith(TREE):
        entered.add(code.co_filename[len(TREE):])
def stepped(optimizer, arguments, keywords):
    if last[0] is optimizer:
        found[size_of(optimizer)] |= {tuple(sorted(entered))}
    last[0] = optimizer
    entered.clear()
optimizers.register_optimizer_step_post_hook(stepped)
sys.setprofile(note)
sys.argv = ["dfkd_core", *sys.argv[4:]]
try:
    runpy.run_module("dfkd_core", run_name="__main__")
except SystemExit as end:
    sys.setprofile(None)
    if end.code:
        raise
parameters = json.load(open(REPORT))["student"]["parameters"]
sets = [files for size, files in found.items() if size == parameters]
json.dump(sorted(min(sets[0], key=len)), open(FILE, "w"))
"""


def trace(tree: Path) -> dict[str, set[str]]:
    """Part → files of the rooms of `tree` whose functions were entered; libraries are left out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        teacher = write_teacher(folder)
        found = trace_service(tree, folder, teacher)
        found["one student update"] = trace_update(tree, folder, teacher)
    return {part: {file for file in files if not file.startswith(".venv")} for part, files in found.items()}


def write_teacher(folder: Path) -> Path:
    """Write a small untrained LeNet-5 as ONNX."""
    from tests.builders import onnx_teacher

    path = folder / "teacher.onnx"
    path.write_bytes(onnx_teacher())
    return path


def trace_service(tree: Path, folder: Path, teacher: Path) -> dict[str, set[str]]:
    """Return the files entered by an accepted submission and by a whole job, in all processes."""
    (folder / "switch").write_bytes(b"\0")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE.format(folder=str(folder), tree=f"{tree}{os.sep}"))
    budget = {"distillation": {"method": "dafl", "memory": "none", "budget": BUDGET}}
    spec = {"student": {"architecture": "lenet5_half"}, **budget}
    with running(tree, folder, "service") as url, httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
        post(client, spec, teacher)  # what is loaded once is loaded
        flip(folder, 1)
        post(client, spec, teacher)
        flip(folder, 0)
        with running(tree, folder, "worker"):
            wait_for_end(client, how_many=2)
            post_and_trace(client, spec, teacher, folder)
    return {
        "one POST /jobs": files_of(folder, 1),
        "claim to publication": files_of(folder, 2),
    }


def post_and_trace(client: httpx.Client, spec: object, teacher: Path, folder: Path) -> None:
    """Run a whole job with the switch on from its acceptance to its end."""
    post(client, spec, teacher)
    flip(folder, 2)
    wait_for_end(client, how_many=3)
    flip(folder, 0)


def post(client: httpx.Client, spec: object, teacher: Path) -> None:
    """Submit one job."""
    files = {"spec": (None, json.dumps(spec), "application/json"), "teacher": ("teacher.onnx", teacher.read_bytes())}
    client.post("/jobs", files=files).raise_for_status()


def wait_for_end(client: httpx.Client, *, how_many: int) -> None:
    """Until so many jobs have succeeded. Reads the ledger through the API, seldom."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        jobs = client.get("/jobs").raise_for_status().json()["jobs"]
        if sum(job["state"] == "succeeded" for job in jobs) >= how_many:
            return
        time.sleep(1)
    raise TimeoutError(f"not {how_many} jobs succeeded")


def flip(folder: Path, part: int) -> None:
    """Say which part is running."""
    with (folder / "switch").open("r+b") as file:
        file.write(bytes([part]))


def files_of(folder: Path, part: int) -> set[str]:
    """Return what all processes noted of one part."""
    return {line for path in folder.glob(f"{part}.*") for line in path.read_text().split()}


@contextmanager
def running(tree: Path, folder: Path, program: str) -> Iterator[str]:
    """`python -m service` on a free port, or `python -m worker`, of the tree."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    settings = {
        "DFKD_DATA_DIR": str(folder / "data"),
        "DFKD_SANDBOX": "off",
        "DFKD_SWEEP_SECONDS": "3600",
        "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{tree}",
    }
    words = ["--port", str(port)] if program == "service" else []
    with (folder / f"{program}.log").open("wb") as log:
        command = [str(tree / ".venv/bin/python"), "-m", program, *words]
        process = subprocess.Popen(command, cwd=tree, env=os.environ | settings, stdout=log, stderr=log)
        try:
            if program == "service":
                wait_for_answer(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def wait_for_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the API answers."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            httpx.get(f"{url}/healthz")
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError("the service does not answer")


def trace_update(tree: Path, folder: Path, teacher: Path) -> set[str]:
    """Return the files entered between two steps of the student's optimiser that follow one another."""
    student, found = folder / "student.onnx", folder / "update.json"
    spec = ["--student", "lenet5_half", "--set", "distillation.method=dafl", "--set", "distillation.memory=none"]
    spec += ["--set", f"distillation.budget.steps={BUDGET['steps']}"]
    program = [
        str(tree / ".venv/bin/python"),
        "-c",
        UPDATE,
        f"{tree}{os.sep}",
        str(folder / "student.report.json"),
        str(found),
    ]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*program, str(teacher), "-o", str(student), "--threads", "1", *spec], cwd=tree, env=environment, check=True
    )
    return set(json.loads(found.read_text()))
