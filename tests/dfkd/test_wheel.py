"""The wheel without extras, in an empty environment of each Python that this machine has.

A Python is found by its name on PATH: python3.11, python3.12, python3.13.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dfkd import Client
from tests.dfkd.two_files import export_in_two_files
from tests.patience import PATIENCE
from tests.service.conftest import SPEC
from tests.service.harness import Service

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("dfkd", "dfkd_core", "jobs", "service", "worker")
PYTHONS = ("python3.11", "python3.12", "python3.13")

CLIENT = """
import json, sys
from pathlib import Path
from dfkd import Client
from dfkd.client import Refused

url, teacher, spec = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
with Client(url) as client:
    job = client.submit(teacher, spec)
    again = client.submit(client.upload(teacher).id, spec)
    try:
        client.submit(teacher, {"student": {"architecture": "none"}})
    except Refused as refusal:
        code = refusal.problem.code
    seen = [client.cancel(each.id).state for each in (job, again)]
    ended = client.wait(job.id, timeout_seconds=60)
    kinds = [event.kind for event in client.events(job.id)]
    client.delete(job.id)
    loaded = {name.partition(".")[0] for name in sys.modules}
    print(json.dumps({"states": seen, "ended": ended.state, "code": code, "kinds": kinds, "loaded": sorted(loaded)}))
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment that holds the wheel and what its base installation brings."""

    bin: Path
    directory: Path  # where commands run: it contains a package `service` of the user

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DFKD_", "PYTHON"))}
        return subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            cwd=self.directory,
            env={**kept, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    directory = tmp_path_factory.mktemp("wheel")
    sources = directory / "sources"
    for name in SOURCES:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory)]
    subprocess.run([*build, str(sources)], check=True, timeout=PATIENCE)
    (built,) = directory.glob("dfkd-*.whl")
    return built


@pytest.fixture(scope="module", params=PYTHONS)
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel without extras in a new environment of one Python."""
    found = shutil.which(request.param)
    if found is None or subprocess.run([found, "-c", ""], check=False, capture_output=True).returncode != 0:
        pytest.skip(f"there is no {request.param} on PATH")
    return _installed(found, str(wheel), tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def with_server(wheel: Path) -> Iterator[Installed]:
    """The wheel with the extra `server` in a new environment of the Python that runs the tests.

    A sandboxed process runs as a user of its own, who must be able to read the environment. Root's temporary
    directories of pytest do not allow that.
    """
    with tempfile.TemporaryDirectory(prefix="dfkd-server-") as name:
        Path(name).chmod(0o755)
        yield _installed(sys.executable, f"{wheel}[server]", Path(name))


def _installed(python: str, what: str, place: Path) -> Installed:
    environment, directory = place / "environment", place / "somebody"
    subprocess.run([python, "-m", "venv", str(environment)], check=True, timeout=PATIENCE)
    install = [str(environment / "bin/python"), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*install, what], check=True, timeout=PATIENCE)
    (directory / "service").mkdir(parents=True)
    (directory / "service/__init__.py").write_text("raise ImportError('this is not the service of dfkd')\n")
    return Installed(environment / "bin", directory)


@pytest.fixture
def teacher_file(teacher: bytes, installed: Installed) -> Iterator[Path]:
    """A teacher in the directory where the commands run."""
    path = installed.directory / "teacher.onnx"
    path.write_bytes(teacher)
    yield path
    path.unlink()


def test_it_brings_four_libraries_and_theirs(installed: Installed) -> None:
    listed = json.loads(installed.run("python", "-m", "pip", "list", "--format", "json").stdout)
    names = {entry["name"].lower() for entry in listed}
    assert {"dfkd", "httpx", "pydantic", "typer", "rich"} <= names
    assert names.isdisjoint({"fastapi", "starlette", "sqlalchemy", "celery", "redis", "numpy", "onnx", "torch"})


def test_it_says_its_version_and_what_it_can_do(installed: Installed) -> None:
    assert installed.run("dfkd", "--version").stdout == "dfkd 0.1.0\n"
    helped = installed.run("dfkd", "--help")
    assert helped.returncode == 0, helped.stderr
    assert all(command in helped.stdout for command in ("submit", "up", "inspect", "keys", "janitor"))


def test_students_are_listed_without_any_extra(installed: Installed) -> None:
    listed = installed.run("dfkd", "students", "--input", "1,32,32", "--json")
    assert "lenet5_half" in {student["name"] for student in json.loads(listed.stdout)}, listed.stderr


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("dfkd inspect teacher.onnx", "server"),
        ("dfkd db current", "server"),
        ("dfkd keys list", "server"),
        ("dfkd tenants list", "server"),
        ("dfkd audit", "server"),
        ("dfkd janitor", "server"),
        ("dfkd export-teacher teacher.onnx -o other.safetensors --architecture lenet5", "worker"),
        ("dfkd submit mynet.py:Net --shape 3,32,32 --student teacher", "worker"),
        ("dfkd up", "worker"),
        ("python -P -m service", "server"),
        ("python -P -m worker", "worker"),
        ("python -P -m dfkd_core teacher.onnx --student lenet5_half", "worker"),
    ],
)
def test_a_command_that_needs_an_extra_names_it(
    installed: Installed, teacher_file: Path, command: str, extra: str
) -> None:
    ended = installed.run(*command.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "this command needs " in ended.stderr
    assert ended.stderr.endswith(f"pip install 'dfkd[{extra}]'\n")
    assert ended.stderr.count("\n") == 1


def test_the_client_works_against_a_service_and_loads_no_other_room(
    installed: Installed, service: Service, teacher_file: Path
) -> None:
    (installed.directory / "uses_the_client.py").write_text(CLIENT)
    words = ("uses_the_client.py", service.url, str(teacher_file), json.dumps(SPEC))
    ran = installed.run("python", *words)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["states"] == ["cancelled", "cancelled"]
    assert (said["ended"], said["code"]) == ("cancelled", "student-infeasible")
    assert said["kinds"][0] == "created"
    assert set(said["loaded"]).isdisjoint({"dfkd_core", "jobs", "service", "worker"})


def test_the_commands_for_jobs_work_against_a_service(
    installed: Installed, service: Service, teacher_file: Path, run_dfkd: Callable[..., str]
) -> None:
    job_id = run_dfkd("submit", teacher_file.name, "--student", "lenet5_half", "--set", "distillation.seed=7").strip()
    assert json.loads(run_dfkd("show", job_id, "--json"))["spec"]["distillation"]["seed"] == 7
    assert job_id in run_dfkd("list")
    assert run_dfkd("cancel", job_id) == "cancelled\n"
    assert f"deleted job {job_id}" in run_dfkd("delete", job_id)
    assert "queued_jobs" in run_dfkd("quota")


def test_a_model_in_two_files_and_a_network_need_the_extra_for_teachers(installed: Installed) -> None:
    two = export_in_two_files(installed.directory / "two.onnx")
    submitted = installed.run("dfkd", "submit", two.name, "--student", "lenet5_half")
    assert (submitted.returncode, submitted.stdout) == (2, "")
    assert "pip install 'dfkd[teacher]'" in submitted.stderr
    program = (
        "import dfkd\ntry: dfkd.compress(None, input_shape=(1, 8, 8))\nexcept dfkd.errors.BadTeacher as e: print(e)"
    )
    assert installed.run("python", "-c", program).stdout == "this command needs torch: pip install 'dfkd[worker]'\n"


@pytest.fixture
def run_dfkd(installed: Installed, service: Service) -> Callable[..., str]:
    """Run `dfkd` in that environment → standard output."""

    def run(*words: str) -> str:
        ran = installed.run("dfkd", *words, DFKD_URL=service.url)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run


@pytest.mark.parametrize("command", ["dfkd db current", "dfkd janitor", "python -P -m service"])
@pytest.mark.parametrize(
    ("variable", "url", "extra"),
    [
        ("DFKD_DATABASE_URL", "postgresql+psycopg://dfkd@127.0.0.1:1/dfkd", "postgres"),
        ("DFKD_ARTIFACTS_URL", "s3://bucket/prefix", "s3"),
    ],
)
def test_what_the_settings_name_needs_its_extra(
    with_server: Installed, command: str, variable: str, url: str, extra: str
) -> None:
    refused = with_server.run(*command.split(), **{variable: url})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"pip install 'dfkd[{extra}]'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_with_the_extra_server_the_api_takes_a_job_and_nothing_that_needs_torch_starts(
    with_server: Installed, teacher: bytes, tmp_path: Path
) -> None:
    (with_server.directory / "teacher.onnx").write_bytes(teacher)
    inspected = with_server.run("dfkd", "inspect", "teacher.onnx")
    assert inspected.returncode == 0, inspected.stderr
    assert "pip install 'dfkd[worker]'" in inspected.stdout
    refused = with_server.run("dfkd", "up", "--data-dir", str(tmp_path / "up"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "this command needs torch" in refused.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environment = {**os.environ, "DFKD_DATA_DIR": str(tmp_path / "data")}
    command = [str(with_server.bin / "python"), "-P", "-m", "service", "--port", str(port)]
    with subprocess.Popen(command, cwd=with_server.directory, env=environment, stderr=subprocess.DEVNULL) as api:
        try:
            with Client(f"http://127.0.0.1:{port}", patience_seconds=PATIENCE) as client:
                client.jobs()  # waits until the API answers
                job = client.submit(with_server.directory / "teacher.onnx", SPEC)
                assert job.state == "queued"
        finally:
            api.terminate()
