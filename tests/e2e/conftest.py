"""One service shared by the tests that do not change it, and the student of an uninterrupted run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import JOB_SECONDS, Followed, Service, running_up, spec
from tests.e2e.teacher import write_teacher
from tests.sandboxes import clear_settings


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    """Keep the settings of this machine out of the tests."""
    clear_settings()


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the tiny teacher."""
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.onnx")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A `dfkd up` that all tests share."""
    with running_up(tmp_path_factory.mktemp("up") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def uninterrupted(service: Service, teacher: Path) -> Followed:
    """An uninterrupted job, and the progress that a client saw."""
    fractions: list[float] = []
    job = service.client.submit(teacher, spec())
    job = service.client.wait(
        job.id, timeout_seconds=JOB_SECONDS, on_update=lambda now: fractions.append(now.progress.fraction)
    )
    assert job.state == "succeeded", job.error
    return Followed(job, fractions)


@pytest.fixture(scope="session")
def reference(service: Service, uninterrupted: Followed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds the job's files."""
    directory = tmp_path_factory.mktemp("reference")
    service.client.download(uninterrupted.job.id, directory)
    return directory
