"""Small values that many tests need."""

import getpass
import os
import re
import socket
import sys
import tempfile
import uuid
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from dfkd_core.architectures.cost import KERNELS
from dfkd_core.planning.worker_speed import KernelSpeed, Pass, WorkerSpeed
from jobs.identity import Caller
from jobs.models import ArtifactRef, Job, JobSpec, TeacherRef
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


def submit_for(store: Store, device: str | None = None, *, tenant: str = "default", priority: int = 0) -> Job:
    """A queued job that asks for a device class, of a tenant and with a priority."""
    owned = store.of(Caller(tenant, priority))
    teacher, _ = owned.put_teacher(teacher_ref())
    spec = JobSpec.model_validate({**job_spec().model_dump(), "device": device})
    return owned.create(str(uuid.uuid4()), spec, teacher.id)


def onnx_teacher(*, channels: int = 1, side: int = 32, num_classes: int = 10, seed: int = 0) -> bytes:
    """A small untrained classifier as an ONNX file: convolution, pooling, two linear layers; about 50 000 weights."""
    rng = np.random.default_rng(seed)
    flat = 8 * ((side - 4) // 2) ** 2
    shapes = {"conv.weight": (8, channels, 5, 5), "fc1.weight": (32, flat), "fc2.weight": (num_classes, 32)}
    weights = {name: (rng.standard_normal(shape) * 0.1).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["images", "conv.weight"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["features"]),
        helper.make_node("MaxPool", ["features"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc1.weight"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "fc2.weight"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", channels, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", num_classes])],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    serialized: bytes = model.SerializeToString()
    return serialized


def traces_in(content: bytes, *places: Path) -> list[str]:
    """What `content` tells of these places, this host, its user and its Python; short names only as whole words."""
    words = {socket.gethostname(), getpass.getuser(), "site-packages", sys.prefix, tempfile.gettempdir(), os.getcwd()}
    words |= {str(Path.home()), *map(str, places)}
    return sorted(
        word for word in words if re.search(rb"(?<![\w.-])" + re.escape(word.encode()) + rb"(?![\w.-])", content)
    )


def worker_speed(*, threads: int = 2, device: str = "cpu", faster: float = 1.0, **changes: Any) -> WorkerSpeed:
    """The speed of a worker, `faster` times that of two ordinary cores."""
    kernel = KernelSpeed(forward=5e10 * faster, input_gradient=4e10 * faster, weight_gradient=4e10 * faster)
    values = {
        "device": device,
        "threads": threads,
        "build": "torch of a test",
        "kernels": dict.fromkeys(KERNELS, kernel),
        "passes": dict.fromkeys(Pass, 5e8 * faster),
        "call_seconds": 1e-5 / faster,
        "call_gradient_seconds": 2e-5 / faster,
        "bf16_factor": 1.0,
        "bf16_tries": (1.0, 1.0, 1.0),
        "start_seconds": 2.0 / faster,
        "export_seconds": 2.0 / faster,
        "base_bytes": 400_000_000,
    }
    return WorkerSpeed.model_validate(values | changes)
