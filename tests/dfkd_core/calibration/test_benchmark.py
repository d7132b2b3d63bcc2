"""The benchmark of a worker: complete, positive, and not slowed down by waiting where one thread is measured."""

import subprocess
import sys
import time

import pytest
import torch

from dfkd_core.architectures.cost import KERNELS
from dfkd_core.calibration import kernels, stopwatch
from dfkd_core.planning.worker_speed import Pass, WorkerSpeed

CPU = torch.device("cpu")


@pytest.fixture
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def speed() -> WorkerSpeed:
    command = [sys.executable, "-m", "dfkd_core.calibration", "--threads", "1"]
    return WorkerSpeed.model_validate_json(subprocess.run(command, capture_output=True, check=True).stdout)


def test_every_kernel_and_every_pass_is_measured(speed: WorkerSpeed) -> None:
    assert set(speed.kernels) == set(KERNELS)
    assert set(speed.passes) == set(Pass)


def test_the_worker_is_named_by_its_device_and_threads(speed: WorkerSpeed) -> None:
    assert (speed.device, speed.threads, speed.worker_class) == ("cpu", 1, "cpu-1")
    assert speed.device_bytes is None
    assert torch.__version__ in speed.build


def test_the_base_is_the_memory_of_a_runner_with_its_libraries(speed: WorkerSpeed) -> None:
    assert 100e6 < speed.base_bytes < 2e9


def test_wide_layers_multiply_faster_than_depthwise_ones(speed: WorkerSpeed) -> None:
    """Reading each value once for nine multiply-adds cannot be as fast as once for more than two thousand."""
    assert speed.kernels["conv-256"].forward > speed.kernels["depthwise"].forward


@pytest.mark.usefixtures("one_thread")
def test_waiting_does_not_count_for_one_thread() -> None:
    assert stopwatch.seconds_of(lambda: time.sleep(0.02), CPU) < 0.01


def test_a_short_call_is_repeated_and_a_long_one_is_not() -> None:
    calls = {"short": 0, "long": 0}

    def short() -> None:
        calls["short"] += 1

    def long() -> None:
        calls["long"] += 1
        until = time.process_time() + 2 * stopwatch.LEAST_SECONDS
        while time.process_time() < until:
            pass

    stopwatch.seconds_of(short, CPU)
    stopwatch.seconds_of(long, CPU)
    assert calls == {"short": 2 + stopwatch.REPETITIONS * stopwatch.MOST_CALLS, "long": 2 + stopwatch.REPETITIONS}


@pytest.mark.parametrize("name", KERNELS)
def test_a_case_counts_the_multiply_adds_of_its_layer(name: str) -> None:
    case = kernels._case(name, CPU)
    with torch.no_grad():
        outputs = case.layer(case.inputs, case.weight)
    assert case.macs == outputs.numel() * case.weight[0].numel()
