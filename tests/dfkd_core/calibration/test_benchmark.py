"""The benchmark of a worker: complete, positive, and not slowed down by waiting where one thread is measured."""

import time

import pytest
import torch

from dfkd_core.architectures.cost import KERNELS
from dfkd_core.calibration import kernels, stopwatch

CPU = torch.device("cpu")


@pytest.fixture
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
