"""Small values that many tests need."""

import uuid
from datetime import UTC, datetime
from hashlib import sha256

from jobs.schemas import ArtifactRef, Job, JobSpec, TeacherRef
from jobs.store import Store


def digest(text: str) -> str:
    """A sha256, made from a word."""
    return sha256(text.encode()).hexdigest()


def job_spec(**labels: str) -> JobSpec:
    """The smallest spec, with labels."""
    return JobSpec.model_validate({"student": {"architecture": "lenet5_half"}, "labels": labels})


def teacher_ref(word: str = "teacher") -> TeacherRef:
    """A teacher whose file is not there."""
    return TeacherRef(id=digest(word), bytes=len(word), format="onnx", created_at=datetime.now(UTC))


def artifact_ref(name: str = "student.onnx", word: str = "student") -> ArtifactRef:
    """A file that is not there."""
    return ArtifactRef(name=name, sha256=digest(word), bytes=len(word), media_type="application/octet-stream")


def submit(store: Store, **labels: str) -> Job:
    """A queued job in the ledger."""
    teacher, _ = store.put_teacher(teacher_ref())
    return store.create(str(uuid.uuid4()), job_spec(**labels), teacher.id)
