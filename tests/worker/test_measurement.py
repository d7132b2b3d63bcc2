"""How a worker learns its speed: measured once, kept, measured again after an interruption, given up in the end."""

import json
import sys
from pathlib import Path

import pytest
import torch

from dfkd_core.architectures.cost import KERNELS
from dfkd_core.planning.precision_choice import TRIES
from dfkd_core.planning.worker_speed import Pass, WorkerSpeed
from jobs.settings import Settings
from tests.builders import worker_speed
from tests.patience import until
from worker.measurement import Measurement, host_memory_bytes

PRINTING = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write('run '); print(sys.argv[2])"
TRYING = f"{PRINTING.rpartition(';')[0]}; print('[1.5, 1.4, 1.6]' if '--precision' in sys.argv else sys.argv[2])"
ENDLESS = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).open('a').write('run '); time.sleep(600)"
FAILING = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write('run '); sys.exit(3)"


class Desk:
    """A worker's settings, and benchmarks that note their runs in a file."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(data_dir=directory, worker_threads=2, runner_memory_bytes=None)
        self.notes = directory / "runs"

    def measurement(self, code: str, *, settings: Settings | None = None) -> Measurement:
        command = [sys.executable, "-c", code, str(self.notes), worker_speed().model_dump_json()]
        return Measurement(settings or self.settings, benchmark=command)

    @property
    def runs(self) -> int:
        return self.notes.read_text().count("run") if self.notes.exists() else 0


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def idle(measurement: Measurement) -> bool:
    thread = measurement._thread
    return thread is not None and not thread.is_alive()


@pytest.fixture(scope="module")
def speed(tmp_path_factory: pytest.TempPathFactory) -> WorkerSpeed:
    """The speed of this machine with one thread, measured as a worker does it."""
    measurement = Measurement(Settings(data_dir=tmp_path_factory.mktemp("measured"), worker_threads=1))
    measurement.start()
    until(lambda: idle(measurement))
    assert measurement.speed is not None
    return measurement.speed


def test_bf16_is_tried_three_times(speed: WorkerSpeed) -> None:
    assert len(speed.bf16_tries) == TRIES
    assert min(speed.bf16_tries) > 0


def test_every_kernel_and_every_pass_is_measured(speed: WorkerSpeed) -> None:
    assert set(speed.kernels) == set(KERNELS)
    assert set(speed.passes) == set(Pass)


def test_the_worker_is_named_by_its_device_and_threads(speed: WorkerSpeed) -> None:
    assert (speed.device, speed.threads, speed.worker_class) == ("cpu", 1, "cpu-1")
    assert speed.device_bytes is None
    assert torch.__version__ in speed.build


def test_the_base_is_the_memory_of_a_runner_with_its_libraries(speed: WorkerSpeed) -> None:
    assert 100e6 < speed.base_bytes < 4e9  # a build for CUDA loads 2 GB


def test_wide_layers_multiply_faster_than_depthwise_ones(speed: WorkerSpeed) -> None:
    """Reading each value once for nine multiply-adds cannot be as fast as once for more than two thousand."""
    assert speed.kernels["conv-256"].forward > speed.kernels["depthwise"].forward


def test_a_worker_measures_once_and_keeps_the_result(desk: Desk) -> None:
    first = desk.measurement(PRINTING)
    assert first.speed is None
    first.start()
    until(lambda: idle(first))
    assert first.speed == worker_speed()
    first.start()
    assert idle(first)
    assert desk.measurement(PRINTING).speed == worker_speed()
    assert desk.runs == 1


def test_a_result_of_a_version_that_did_not_try_bf16_is_measured_again(desk: Desk) -> None:
    desk.measurement(PRINTING)._keep(worker_speed(bf16_tries=()))
    assert desk.measurement(PRINTING).speed is None


def test_a_job_that_needs_the_tries_of_bf16_gets_them_before_the_rest_is_measured(desk: Desk) -> None:
    measurement = desk.measurement(TRYING)
    assert measurement.bf16_tries() == measurement.bf16_tries() == (1.5, 1.4, 1.6)
    assert (measurement.speed, desk.runs) == (None, 1)
    measurement.start()
    until(lambda: idle(measurement))
    assert measurement.speed == worker_speed(bf16_tries=(1.5, 1.4, 1.6))  # a worker decides once
    assert desk.measurement(TRYING).bf16_tries() == (1.5, 1.4, 1.6)
    assert desk.runs == 2


def test_a_worker_that_was_measured_does_not_try_again(desk: Desk) -> None:
    desk.measurement(PRINTING)._keep(worker_speed(bf16_tries=(3.0, 3.0, 3.0)))
    assert desk.measurement(FAILING).bf16_tries() == (3.0, 3.0, 3.0)
    assert desk.runs == 0


def test_tries_that_fail_are_none_and_are_not_repeated(desk: Desk) -> None:
    failing = desk.measurement(FAILING)
    assert failing.bf16_tries() == failing.bf16_tries() == ()
    assert desk.runs == 1


@pytest.mark.slow
def test_the_benchmark_itself_prints_the_tries_alone(tmp_path: Path) -> None:
    measurement = Measurement(Settings(data_dir=tmp_path, worker_threads=1))
    assert len(measurement.bf16_tries()) == TRIES
    assert measurement.speed is None


@pytest.mark.parametrize("change", [{"worker_threads": 1}, {"worker_device": "cuda:1"}])
def test_a_kept_result_counts_for_the_same_conditions_only(desk: Desk, change: dict[str, object]) -> None:
    first = desk.measurement(PRINTING)
    first.start()
    until(lambda: idle(first))
    assert desk.measurement(PRINTING, settings=desk.settings.model_copy(update=change)).speed is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": {}}', '{"key": null, "speed": 3}'])
def test_a_damaged_result_is_as_none(desk: Desk, text: str) -> None:
    (desk.settings.data_dir / "speed-cpu.json").write_text(text)
    assert desk.measurement(PRINTING).speed is None


def test_a_result_of_another_version_is_not_read(desk: Desk) -> None:
    first = desk.measurement(PRINTING)
    first.start()
    until(lambda: idle(first))
    path = desk.settings.data_dir / "speed-cpu.json"
    document = json.loads(path.read_text())
    document["key"]["version"] += 1
    path.write_text(json.dumps(document))
    assert desk.measurement(PRINTING).speed is None


def test_a_job_that_comes_ends_the_measurement_and_it_is_made_later(desk: Desk) -> None:
    endless = desk.measurement(ENDLESS)
    for run in range(1, 6):  # an interruption is no failure, however many there are
        endless.start()
        until(lambda run=run: desk.runs == run)
        endless.interrupt()
        until(lambda: idle(endless))
        assert endless.speed is None


@pytest.mark.parametrize("code", [FAILING, "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write('run ')"])
def test_a_benchmark_that_fails_is_given_up(desk: Desk, code: str) -> None:
    failing = desk.measurement(code)
    for _ in range(5):
        failing.start()
        until(lambda: idle(failing))
    assert (failing.speed, desk.runs) == (None, 3)


def test_the_memory_of_a_runner_is_the_limit_or_a_share_of_the_host(desk: Desk) -> None:
    shared = desk.settings.model_copy(update={"worker_slots": 4})
    assert desk.measurement(PRINTING, settings=shared).memory_bytes == host_memory_bytes() // 4
    limited = desk.settings.model_copy(update={"runner_memory_bytes": 123})
    assert desk.measurement(PRINTING, settings=limited).memory_bytes == 123
    gpu = desk.settings.model_copy(update={"worker_device": "cuda"})
    assert desk.measurement(PRINTING, settings=gpu).memory_bytes is None
