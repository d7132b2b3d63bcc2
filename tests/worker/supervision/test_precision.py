"""The tries of the worker choose the precision of a run if its spec leaves that open, and only once for each run."""

import pytest

from jobs.models import JobState
from tests.builders import worker_speed
from tests.worker.conftest import Bench
from worker.measurement import Measurement


@pytest.mark.parametrize(("precision", "told"), [("auto", [2.0, 2.0, 2.0]), ("fp32", []), ("bf16", [])])
def test_a_runner_is_told_the_tries_of_its_worker_if_it_has_to_choose(
    bench: Bench, precision: str, told: list[float]
) -> None:
    Measurement(bench.settings)._keep(worker_speed(bf16_tries=(2.0, 2.0, 2.0)))
    bench.measurement = Measurement(bench.settings)
    bench.submit(distillation={"compute": {"precision": precision}})
    assert bench.report(bench.attempt("tell_task"))["bf16_tries"] == told


def test_a_run_that_goes_on_from_a_checkpoint_is_told_none(bench: Bench) -> None:
    Measurement(bench.settings)._keep(worker_speed(bf16_tries=(2.0, 2.0, 2.0)))
    bench.measurement = Measurement(bench.settings)
    bench.submit()
    assert bench.attempt("crash").state is JobState.QUEUED
    task = bench.report(bench.attempt("tell_task"))
    assert task["began_at"] == "10"
    assert task["bf16_tries"] == []


def test_a_worker_that_cannot_be_measured_runs_the_job_all_the_same(bench: Bench) -> None:
    bench.measurement = Measurement(bench.settings, benchmark=["no-such-benchmark"])
    bench.submit()
    assert bench.report(bench.attempt("tell_task"))["bf16_tries"] == []
