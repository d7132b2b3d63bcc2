"""One service process for all tests that do not need settings of their own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.models import ArtifactRef, BestStudent, Progress
from tests.builders import onnx_teacher
from tests.patience import scaled
from tests.service.guarded import Guarded, guarded_service
from tests.service.harness import Finished, Service, post_parts, running_service, spec_text

SPEC: dict[str, Any] = {"student": {"architecture": "lenet5_half"}}


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with small limits; nobody works on its jobs."""
    limits = {
        "DFKD_MAX_UPLOAD_BYTES": "1000000",
        "DFKD_MAX_SPEC_BYTES": "8192",
        "DFKD_UPLOAD_IDLE_SECONDS": str(scaled(2.0)),
    }
    with running_service(tmp_path_factory.mktemp("service") / "data", **limits, DFKD_SWEEP_SECONDS="3600") as running:
        yield running


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A running service that asks for keys."""
    limits = {"DFKD_MAX_UPLOAD_BYTES": "1000000", "DFKD_SWEEP_SECONDS": "0.5", "DFKD_LOG_FORMAT": "json"}
    with guarded_service(tmp_path_factory.mktemp("guarded") / "data", **limits) as running:
        yield running


@pytest.fixture
def http(service: Service) -> httpx.Client:
    """A client of that service."""
    return service.http


@pytest.fixture(scope="session")
def teacher() -> bytes:
    """A teacher for 1 × 32 × 32 images and 10 classes."""
    return onnx_teacher()


@pytest.fixture
def queued(service: Service, teacher: bytes) -> str:
    """The id of a queued job."""
    response = post_parts(service.http, [("spec", spec_text(SPEC)), ("teacher", teacher)])
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


@pytest.fixture
def running(service: Service, queued: str) -> tuple[str, int]:
    """The id of a job that a worker has claimed, and its fencing token."""
    return queued, claim(service, queued)


@pytest.fixture
def finished(service: Service, queued: str, tmp_path: Path) -> Finished:
    """A job that succeeded, with files in the store, as a worker would have put them there."""
    fence = claim(service, queued)
    service.store.record(queued, fence, progress=Progress(stage="distill", fraction=0.5, step=5, total_steps=10))
    files = {
        "student.onnx": b"onnx " + bytes(range(256)) * 400 + queued.encode(),
        "student.safetensors": b"safetensors " + queued.encode(),
        "report.json": json.dumps({"job": "of a test", "salt": queued}).encode(),
    }
    references = []
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        sha256, size = service.artifacts.put_file(tmp_path / name)
        media_type = "application/json" if name.endswith("json") else "application/octet-stream"
        references.append(ArtifactRef(name=name, sha256=sha256, bytes=size, media_type=media_type))
    best = BestStudent(step=10, agreement=0.97)
    assert service.store.succeed(queued, fence, artifacts=references, best=best)
    return Finished(queued, files)


def claim(service: Service, job_id: str, *, lease_seconds: float = 600) -> int:
    """Claim queued jobs until this one is claimed; the others are ended."""
    while True:
        claimed = service.store.claim("a-test", lease_seconds=lease_seconds, threads=1)
        assert claimed is not None
        if claimed.job.id == job_id:
            return claimed.fence
        service.store.request_cancel(claimed.job.id)
        assert service.store.cancelled(claimed.job.id, claimed.fence)
