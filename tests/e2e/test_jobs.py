"""From a teacher's file to a student that works, over HTTP, with real processes."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from dfkd.client import Refused
from tests.builders import traces_in
from tests.dfkd_core.interfaces import CLASSES, LOGITS_AND_FEATURES, SIDE, pixels, run
from tests.e2e.service import PROFILE, Followed, Service, gone, spec
from tests.e2e.teacher import INPUT_SHAPE, NUM_CLASSES
from tests.patience import until


def test_a_student_is_downloaded_and_works(reference: Path) -> None:
    session = onnxruntime.InferenceSession(reference / "student.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        images = np.zeros((batch, *INPUT_SHAPE), np.float32)
        (logits,) = session.run(None, {session.get_inputs()[0].name: images})
        assert logits.shape == (batch, NUM_CLASSES)
        assert np.isfinite(logits).all()
    report = json.loads((reference / "report.json").read_text())
    assert report["seed"] == 7
    assert report["threads"] == int(PROFILE["DFKD_WORKER_THREADS"])
    assert (reference / "student.safetensors").stat().st_size > 1000


def test_the_files_say_nothing_of_where_they_were_made(service: Service, reference: Path) -> None:
    for path in reference.iterdir():
        assert traces_in(path.read_bytes(), service.data_dir, reference) == [], path.name


def test_progress_rises_and_history_tells_the_stages(service: Service, uninterrupted: Followed) -> None:
    job, fractions = uninterrupted
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    events = list(service.client.events(job.id))
    kinds = [event.kind for event in events]
    assert (kinds[0], kinds[1], kinds[-1]) == ("created", "claimed", "succeeded")
    stages = [event.data["stage"] for event in events if event.kind == "stage"]
    assert stages == sorted(set(stages), key=stages.index)
    assert {"load", "distill", "export"} <= set(stages)


def test_jobs_are_cancelled_in_every_state_and_deleted_when_they_have_ended(service: Service, teacher: Path) -> None:
    running = service.client.submit(teacher, spec(steps=1_000_000))
    queued = service.client.submit(teacher, spec())
    service.in_the_middle(running)
    assert service.client.cancel(queued.id).state == "cancelled"
    with pytest.raises(Refused, match="invalid-transition"):
        service.client.delete(running.id)
    runner = service.runner()
    assert service.client.cancel(running.id).state in {"cancelling", "cancelled"}
    job = service.finish(running)
    assert (job.state, service.client.artifacts(job.id)) == ("cancelled", [])
    until(lambda: gone(runner))
    until(lambda: not list((service.data_dir / "work").glob("*/*")))
    blobs = service.data_dir / "artifacts" / "blobs"
    before = set(blobs.glob("??/*"))
    service.client.delete(job.id)
    with pytest.raises(Refused, match=r"not-found"):
        service.client.job(job.id)
    assert len(before - set(blobs.glob("??/*"))) == 2  # its checkpoints; the teacher stays


def test_a_teacher_that_does_not_fit_is_refused_before_there_is_a_job(service: Service, teacher: Path) -> None:
    before = len(service.client.jobs(limit=100).jobs)
    with pytest.raises(Refused) as refused:
        service.client.submit(teacher, {**spec(), "student": {"architecture": "lenet5"}})
    assert refused.value.problem.status == 422
    assert len(service.client.jobs(limit=100).jobs) == before


def test_a_student_takes_and_returns_what_its_teacher_does(service: Service, tmp_path: Path) -> None:
    """uint8 images with channels last go in; of two outputs, one is named."""
    teacher = tmp_path / "teacher.onnx"
    teacher.write_bytes(pixels("NHWC", **LOGITS_AND_FEATURES).SerializeToString())
    asked = {**spec(steps=10), "student": {"architecture": "teacher", "width": 0.5}}
    with pytest.raises(Refused, match="logits") as refused:
        service.client.submit(teacher, asked)
    assert refused.value.problem.errors[0].pointer == "/teacher/output"
    job = service.client.submit(teacher, {**asked, "teacher": {"output": "logits"}})
    assert job.spec["teacher"]["input"] == {
        "shape": [3, SIDE, SIDE],
        "layout": "NHWC",
        "mean": None,
        "std": None,
        "range": [0.0, 255.0],
        "assumed": None,
    }
    service.succeed(job)
    service.student(job, tmp_path / "student")
    drawn = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3)).astype(np.uint8)
    theirs, ours = run(teacher, drawn, "logits"), run(tmp_path / "student" / "student.onnx", drawn, "logits")
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype) == ((5, CLASSES), np.float32)
    report = json.loads((tmp_path / "student" / "report.json").read_text())
    assert report["student"]["interface"] == report["teacher"]["interface"]
    again = service.client.submit(teacher, job.spec)
    assert again.spec == job.spec
    service.cancel(again)
