"""`dfkd` against the real service: what it prints, where, and its exit codes."""

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from dfkd.cli import main
from dfkd.cli.display import Follower, duration, size
from dfkd.cli.exit_codes import Exit
from dfkd.wire.job import JobView
from jobs.models import ArtifactRef, BestStudent, JobError, JobSpec, Progress
from service.representation import examples
from tests.jobs.clockwork import age_spec
from tests.patience import PATIENCE, scaled
from tests.service.conftest import claim
from tests.service.harness import Finished, Service

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Ran:
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `dfkd` with these arguments in this process."""

    def run(*words: object, url: str = service.url) -> Ran:
        monkeypatch.setenv("DFKD_URL", url)
        monkeypatch.setattr(sys, "argv", ["dfkd", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        return Ran(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def teacher_file(teacher: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "teacher.onnx"
    path.write_bytes(teacher)
    return path


@pytest.fixture
def worker(service: Service) -> Iterator[Callable[[Callable[[str, int], object]], None]]:
    """Claim the job that is queued next in another thread, and call a function with it."""
    threads: list[threading.Thread] = []

    def start(act: Callable[[str, int], object]) -> None:
        def work() -> None:
            while (claimed := service.store.claim("a-test", lease_seconds=600, threads=1)) is None:
                time.sleep(0.05)
            act(claimed.job.id, claimed.fence)

        for job in service.store.list(100, states=["queued"]).jobs:
            service.store.request_cancel(job.id)
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


def test_submit_prints_the_id_and_sends_what_was_said(run: Run, service: Service, teacher_file: Path) -> None:
    spec = teacher_file.with_name("spec.json")
    spec.write_text(json.dumps({"labels": {"a": "b"}, "distillation": {"memory": "none", "seed": 1}}))
    words = ("--student", "lenet5_half", "--spec", spec, "--set", "distillation.seed=7", "--name", "mine")
    ran = run("submit", teacher_file, *words, "--label", "c.d=e")
    assert (ran.code, ran.err) == (Exit.OK, "")
    job = service.store.get(ran.out.strip())
    assert isinstance(job.spec, JobSpec)
    assert (job.spec.distillation.seed, job.spec.distillation.memory) == (7, "none")
    assert (job.spec.name, job.spec.labels) == ("mine", {"a": "b", "c.d": "e"})


def test_submit_takes_the_id_of_a_known_teacher(run: Run, service: Service, queued: str) -> None:
    teacher_id = service.store.get(queued).teacher.id
    ran = run("submit", teacher_id, "--student", "lenet5_half", "--json")
    assert json.loads(ran.out)["teacher"]["id"] == teacher_id


def test_submitting_twice_under_one_key_makes_one_job(run: Run, service: Service, queued: str) -> None:
    words = (service.store.get(queued).teacher.id, "--student", "lenet5_half", "--idempotency-key", f"cli-{queued}")
    first, second = run("submit", *words), run("submit", *words)
    assert (first.code, second.code, first.out) == (Exit.OK, Exit.OK, second.out)
    assert first.out.strip() == service.store.list(1).jobs[0].id != queued
    assert "idempotency-key-reused" in run("submit", *words, "--name", "another").err


def test_a_job_is_paused_and_resumed(run: Run, queued: str) -> None:
    assert (run("pause", queued).out, run("resume", queued).out) == ("paused\n", "queued\n")
    assert json.loads(run("pause", queued, "--json").out)["state"] == "paused"
    assert run("pause", "x").code == Exit.REFUSED


def test_a_finished_job_is_run_once_more_or_refused(run: Run, service: Service, finished: Finished) -> None:
    ran = run("retry", finished.id)
    assert service.store.get(ran.out.strip()).retried_from == finished.id
    ran = run("continue", finished.id, "--steps", 90_000)
    assert (ran.code, "checkpoint-expired" in ran.err) == (Exit.REFUSED, True)


def test_a_refusal_names_code_field_and_hint_on_standard_error(run: Run, teacher_file: Path) -> None:
    ran = run("submit", teacher_file, "--student", "lenet5_half", "--set", "distillation.sed=7")
    assert (ran.code, ran.out) == (Exit.REFUSED, "")
    assert "validation-error" in ran.err
    assert "/distillation/sed: unknown key" in ran.err
    assert "hint: " in ran.err


def test_waiting_shows_progress_and_fetches_the_files(
    run: Run, service: Service, worker: Callable[..., None], teacher_file: Path, finished: Finished
) -> None:
    references = service.store.get(finished.id).artifacts

    def act(job_id: str, fence: int) -> None:
        progress = Progress(stage="distill", fraction=0.5, step=50, total_steps=100, agreement=0.91)
        service.store.record(job_id, fence, progress=progress)
        time.sleep(scaled(1.2))  # until it has been shown
        service.store.succeed(job_id, fence, artifacts=references, best=BestStudent(step=90, agreement=0.97))

    worker(act)
    ran = run("submit", teacher_file, "--student", "lenet5_half", "--wait", "--output", teacher_file.parent / "out")
    assert ran.code == Exit.OK
    assert ran.out.endswith(" succeeded\n")
    assert "distill     50.0%  step 50/100, agreement on the probe 91.0%" in ran.err
    took = duration(service.store.list(1).jobs[0].running_seconds)
    assert f"succeeded after {took}, agreement on the probe 97.0%" in ran.err  # no figure in that report
    assert (teacher_file.parent / "out" / "student.onnx").read_bytes() == finished.files["student.onnx"]


def test_a_failed_job_is_exit_code_one_and_says_why(
    run: Run, service: Service, worker: Callable[..., None], teacher_file: Path
) -> None:
    error = JobError(code="generator-collapsed", detail="one image only", hint="another seed", stage="distill")
    worker(lambda job_id, fence: service.store.fail(job_id, fence, error=error))
    ran = run("submit", teacher_file, "--student", "lenet5_half", "--wait", "--json")
    assert (ran.code, json.loads(ran.out)["state"]) == (Exit.FAILED, "failed")
    assert "generator-collapsed: one image only" in ran.err
    assert "hint: another seed" in ran.err


def test_a_cancelled_job_has_an_exit_code_of_its_own(run: Run, queued: str) -> None:
    assert run("cancel", queued) == Ran(Exit.OK, "cancelled\n", "")
    assert run("wait", queued).code == Exit.CANCELLED
    assert run("cancel", queued).code == Exit.OK


def test_waiting_may_be_limited(run: Run, queued: str) -> None:
    ran = run("wait", queued, "--timeout", "0.1")
    assert ran.code == Exit.TIMEOUT
    assert "it goes on" in ran.err


def test_show_tells_about_one_job_and_its_history(run: Run, finished: Finished) -> None:
    ran = run("show", finished.id, "--events")
    assert ran.code == Exit.OK
    assert "succeeded" in ran.out
    assert "student.onnx" in ran.out
    assert "created" in ran.out
    assert json.loads(run("show", finished.id, "--json").out)["id"] == finished.id


def test_a_job_with_the_spec_of_another_version_is_shown(run: Run, service: Service, queued: str) -> None:
    age_spec(service.store, queued, '{"student": "lenet5_half"}')
    for words in (("show", queued), ("list", "--limit", "1")):
        ran = run(*words)
        assert (ran.code, queued in ran.out) == (Exit.OK, True)


def test_list_has_one_uncut_line_a_job(run: Run, queued: str, finished: Finished) -> None:
    ran = run("list", "--limit", "1")
    assert [line.split()[:3] for line in ran.out.splitlines()] == [
        ["ID", "STATE", "STAGE"],
        [finished.id, "succeeded", "done"],
    ]
    assert finished.id == queued  # the fixtures share the job
    found = json.loads(run("list", "--state", "succeeded", "--limit", "1", "--json").out)
    assert [job["id"] for job in found["jobs"]] == [finished.id]


def test_download_fetches_or_says_that_it_is_too_early(run: Run, running: tuple[str, int], tmp_path: Path) -> None:
    ran = run("download", running[0], "--output", tmp_path)
    assert (ran.code, ran.out) == (Exit.REFUSED, "")
    assert "the job is running" in ran.err


def test_download_saves_the_files(run: Run, finished: Finished, tmp_path: Path) -> None:
    ran = run("download", finished.id, "-o", tmp_path / "out")
    assert ran.code == Exit.OK
    assert {Path(line).name: Path(line).read_bytes() for line in ran.out.splitlines()} == finished.files


@pytest.fixture
def audited(service: Service, running: tuple[str, int], tmp_path: Path) -> str:
    """The id of a succeeded job whose report has a lower agreement than its probe."""
    report = tmp_path / "made" / "report.json"
    report.parent.mkdir()
    agreement = {"value": 0.935, "interval": [0.923, 0.9456], "confidence": 0.95, "n": 2000, "kl_mean": 0.1}
    report.write_text(json.dumps({"schema_version": 1, "agreement": agreement, "job": running[0]}))
    sha256, num_bytes = service.artifacts.put_file(report)
    ref = ArtifactRef(name=report.name, sha256=sha256, bytes=num_bytes, media_type="application/json")
    assert service.store.succeed(*running, artifacts=[ref], best=BestStudent(step=90, agreement=0.97))
    return running[0]


def test_the_audited_agreement_is_told_where_the_report_was_fetched(run: Run, audited: str, tmp_path: Path) -> None:
    audit = "agreement 93.5% (95% interval 92.3% to 94.6%) on 2,000 audit images"
    waited = run("wait", audited, "--output", tmp_path / "waited")
    assert (waited.code, waited.out) == (Exit.OK, f"{audited} succeeded\n")
    assert f"succeeded after 0 s, {audit}\n" in waited.err
    fetched = run("download", audited, "--output", tmp_path / "fetched")
    assert (fetched.code, fetched.err) == (Exit.OK, f"{audit}\n")
    only_asked = run("wait", audited)
    assert "succeeded after 0 s, agreement on the probe 97.0%\n" in only_asked.err
    assert "audit" not in only_asked.err


def test_a_job_that_succeeded_says_so_though_its_files_cannot_be_written(
    run: Run, audited: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    ran = run("wait", audited, "--output", tmp_path / "file")
    assert ran.code == Exit.DOWNLOAD
    assert "succeeded after 0 s, agreement on the probe 97.0%\n" in ran.err


def test_students_are_listed_without_a_service(run: Run) -> None:
    ran = run("students", "--input", "1,32,32", url="http://127.0.0.1:9")
    assert ran.code == Exit.OK
    assert any(line.split()[:3] == ["lenet5", "lenet", "61,706"] for line in ran.out.splitlines()), ran.out
    sized = json.loads(run("students", "--input", "1,32,32", "--classes", "7", "--json").out)
    assert {student["name"] for student in sized} >= {"lenet5_half", "resnet18", "wrn_40_2"}


def test_a_teacher_is_inspected_without_a_service(run: Run, teacher_file: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    ran = run("inspect", teacher_file, url=nowhere)
    assert ran.code == Exit.OK, ran
    lines = {line.split()[0]: line for line in ran.out.splitlines()}
    assert "10 classes" in lines["output"]
    assert "from ONNX Runtime" in lines["parity"]
    assert "ddad: needs batchnorm" in lines["not"]
    found = json.loads(run("inspect", teacher_file, "--json", url=nowhere).out)
    assert found["inspection"]["num_classes"] == 10
    assert found["depth"]["gradient_error"] < 1e-3
    assert found["refused"] is None


def test_what_would_be_refused_is_said_with_its_code_and_hint(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 archive/data.pkl")
    ran = run("inspect", tmp_path / "model.pt")
    assert ran.code == Exit.REFUSED
    assert "format-unsupported" in ran.out
    assert "hint: " in ran.out
    assert json.loads(run("inspect", tmp_path / "model.pt", "--json").out)["refused"]["code"] == "format-unsupported"
    assert run("inspect", tmp_path / "model.pt", "--shape", "3,x").code == Exit.USAGE


@pytest.mark.parametrize(
    "words",
    [
        ("students", "--input", "3,32"),
        ("submit", "no-such-file", "--student", "lenet5"),
        ("submit", ROOT / "pyproject.toml", "--set", "nonsense"),
        ("submit", ROOT / "pyproject.toml", "--label", "nonsense"),
        ("submit", ROOT / "pyproject.toml", "--spec", "no-such-file"),
        ("submit", ROOT / "pyproject.toml", "--spec", ROOT / "pyproject.toml"),
        ("unheard-of",),
        ("show",),
    ],
)
def test_wrong_usage_is_exit_code_two(run: Run, words: tuple[object, ...]) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert ran.err


def test_a_wrong_setting_is_said_by_the_name_of_its_variable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFKD_LEASE_SECONDS", "soon")
    ran = run("up")
    assert ran.code == Exit.USAGE
    assert "DFKD_LEASE_SECONDS: " in ran.err


def test_a_service_that_is_not_there_is_said_without_a_traceback(run: Run) -> None:
    ran = run("cancel", "x", url="http://127.0.0.1:9")
    assert (ran.code, ran.out) == (Exit.UNREACHABLE, "")
    assert "hint: " in ran.err
    assert "Traceback" not in ran.err


def test_an_unknown_job_is_refused(run: Run) -> None:
    for command in ("show", "wait", "cancel", "download"):
        ran = run(command, "no-such-job")
        assert (ran.code, "job-not-found" in ran.err) == (Exit.REFUSED, True), command


def test_ctrl_c_leaves_the_job_running(service: Service, queued: str) -> None:
    claim(service, queued)
    command = [sys.executable, "-m", "dfkd.cli.main", "wait", queued, "--url", service.url]
    # Jobs that a script starts in the background ignore Ctrl-C, and so do all their children.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, heard)
    with process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == Exit.INTERRUPTED
    assert first
    assert f"the job goes on: dfkd wait {queued}" in err
    assert "Traceback" not in err
    assert service.store.get(queued).public_state == "running"


def test_a_terminal_gets_a_live_line() -> None:
    screen = io.StringIO()
    job = JobView.model_validate({**examples.RUNNING_JOB, "stage": "[red]distill"})
    with Follower(Console(file=screen, force_terminal=True, width=120)) as follower:
        follower.update(job)
        follower._progress.refresh()
    assert "41%" in screen.getvalue()
    assert "[red]distill" in screen.getvalue()
    assert "agreement on the probe 96.2%, 5:01 min left" in screen.getvalue()


def test_sizes_and_times_are_said_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 61, 3599.6, 7322)] == [
        "0 s",
        "59 s",
        "1:01 min",
        "1:00 h",
        "2:02 h",
    ]
    assert [size(count) for count in (999, 1000, 2_500_000, 3e9)] == ["999 bytes", "1.0 kB", "2.5 MB", "3.0 GB"]


def test_the_page_lists_the_exit_codes() -> None:
    page = (ROOT / "docs/client.md").read_text()
    assert [code for code in Exit if f"| {code.value} |" not in page] == []


def test_the_janitor_says_what_it_would_do_and_does_it(
    run: Run, service: Service, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFKD_RETENTION_DAYS", "0.0000001")
    words = ("janitor", "--data-dir", service.settings.data_dir)
    plan = run(*words, "--dry-run")
    assert f"expire {finished.id}: finished 1e-07 days ago: its files\n" in plan.out
    assert len(service.http.get(f"/jobs/{finished.id}/artifacts").json()["artifacts"]) == 3
    done = run(*words)
    assert (done.code, done.err) == (0, f"{len(done.out.splitlines())} done\n")
    assert f"expire {finished.id}: " in done.out
    assert service.http.get(f"/jobs/{finished.id}/artifacts").json() == {"artifacts": []}
    refused = run("download", finished.id)
    assert (refused.code, "artifact-expired" in refused.err) == (Exit.REFUSED, True)
