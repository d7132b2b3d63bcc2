"""Optional results of a runner besides student and report: the teacher's verification, and samples."""

from jobs.models import JobState
from tests.worker.conftest import Bench
from tests.worker.scripted_runner import DEPTH


def test_what_running_a_teacher_showed_is_kept_with_it(bench: Bench) -> None:
    bench.submit()
    job = bench.attempt("done")
    assert bench.store.get_teacher(job.teacher.id).inspection == {"depth": DEPTH}


def test_a_runner_cannot_say_of_a_teacher_what_none_can_be(bench: Bench) -> None:
    bench.submit()
    job = bench.attempt("nonsense")
    assert job.state is JobState.SUCCEEDED
    assert "depth" not in bench.store.get_teacher(job.teacher.id).inspection


def test_samples_are_published_when_the_spec_asks_for_them(bench: Bench) -> None:
    bench.submit(export={"samples": True})
    job = bench.attempt("done")
    (samples,) = (ref for ref in job.artifacts if ref.name == "samples.png")
    assert (samples.media_type, bench.artifact(job, "samples.png")) == ("image/png", b"samples")
