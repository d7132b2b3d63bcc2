"""One service for the tests that leave it as they found it, and the student of a run that nothing interrupted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import JOB_SECONDS, Followed, Service, running_up, spec
from tests.e2e.teacher import write_teacher
from tests.sandboxes import clear_settings


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    """The machine's own settings are not part of a test."""
    clear_settings()


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher."""
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.onnx")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`dfkd up`, shared."""
    with running_up(tmp_path_factory.mktemp("up") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def uninterrupted(service: Service, teacher: Path) -> Followed:
    """A job that nothing interrupted, and how it went."""
    fractions: list[float] = []
    job = service.client.submit(teacher, spec())
    job = service.client.wait(
        job.id, timeout_seconds=JOB_SECONDS, on_update=lambda now: fractions.append(now.progress.fraction)
    )
    assert job.state == "succeeded", job.error
    return Followed(job, fractions)


@pytest.fixture(scope="session")
def reference(service: Service, uninterrupted: Followed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with its files."""
    directory = tmp_path_factory.mktemp("reference")
    service.client.download(uninterrupted.job.id, directory)
    return directory
