"""`dfkd up`: one command that starts every process and leaves none behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.e2e.service import Service, gone, profile, running_up, spec
from tests.patience import PATIENCE, until
from tests.sandboxes import is_sandbox_process

DFKD = str(Path(sys.executable).with_name("dfkd"))


def refusal(*arguments: str) -> str:
    """Return what `dfkd up` prints when it cannot start."""
    answer = subprocess.run(
        [DFKD, "up", *arguments],
        env={**os.environ, **profile()},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert answer.returncode != 0
    assert "Traceback" not in answer.stderr
    return answer.stdout + answer.stderr


def without_sandbox(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Leave out the processes that only hold the sandbox of another."""
    return [process for process in processes if not is_sandbox_process(process.cmdline())]


def test_it_leaves_no_process_behind_however_it_ends(teacher: Path, tmp_path: Path) -> None:
    with running_up(tmp_path / "data") as service:
        job = service.in_the_middle(service.client.submit(teacher, spec(steps=1_000_000)))
        runner, everything = service.runner(), service.processes()
        assert {runner.pid, service.worker().pid} < {process.pid for process in everything}
        assert len(without_sandbox(everything)) == 4  # API, Redis, worker, runner
        service.roots[0].send_signal(signal.SIGTERM)
        assert service.roots[0].wait(PATIENCE) == 0
        assert [process for process in everything if not gone(process)] == []
    assert not (tmp_path / "data" / "redis.sock").exists()
    with running_up(tmp_path / "data") as again:  # nothing is lost, and nothing is in the way
        until(lambda: again.client.job(job.id).state == "running")
        again.runner()
        assert again.client.job(job.id).attempt == 1
        everything = again.processes()
        assert len(without_sandbox(everything)) == 4
        again.roots[0].kill()
        until(lambda: all(gone(process) for process in everything))


def test_ctrl_c_stops_it_and_a_deep_data_directory_is_no_trouble_for_redis(tmp_path: Path) -> None:
    data_dir = tmp_path / ("a-rather-long-name-" * 5) / "data"
    data_dir.parent.mkdir()
    with running_up(data_dir) as service:
        until(lambda: service.client.ready().checks["broker"] == "ok")
        words = [word for process in service.processes() for word in process.cmdline()]
        (path,) = (Path(word.rpartition(":")[2]) for word in words if word.endswith("redis.sock"))
        assert len(bytes(path)) < 100
        assert path.stat().st_mode & 0o777 == 0o600
        everything = service.processes()
        service.roots[0].send_signal(signal.SIGINT)
        assert service.roots[0].wait(PATIENCE) == 0
        assert [process for process in everything if not gone(process)] == []
    assert not path.parent.exists()


def test_a_second_one_on_the_same_data_is_refused(service: Service) -> None:
    said = refusal("--port", "0", "--data-dir", str(service.data_dir))
    assert f"process {service.roots[0].pid} serves" in said
    assert service.client.ready().checks["broker"] == "ok"


def test_a_port_in_use_is_named_and_nothing_is_started(service: Service, tmp_path: Path) -> None:
    port = service.url.rsplit(":", 1)[1]
    said = refusal("--port", port, "--data-dir", str(tmp_path / "other"))
    assert f"cannot listen on 127.0.0.1 port {port}" in said
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["up.lock"]


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    said = refusal("--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert "there is no API key yet" in said
    assert not (tmp_path / "data").exists()


def test_only_the_api_has_a_port_and_it_is_small(service: Service) -> None:
    listening = [
        (process.pid, connection.laddr)
        for process in service.processes()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert [pid for pid, _ in listening] == [service.roots[0].pid]
    assert psutil.Process(service.roots[0].pid).memory_info().rss < 150 * 1024**2
