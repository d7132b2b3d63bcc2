"""From a PyTorch module in memory to a student on disk, through a real service."""

from pathlib import Path

import onnxruntime
import torch
from torch import nn

import dfkd
from tests.e2e.service import JOB_SECONDS, Service, spec
from tests.e2e.teacher import INPUT_SHAPE, NUM_CLASSES


def test_a_module_becomes_a_student(service: Service, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2))
    model = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, NUM_CLASSES))
    job = dfkd.compress(
        model,
        input_shape=INPUT_SHAPE,
        mean=0.5,
        std=0.25,
        spec=spec(steps=10),
        student="teacher",
        url=service.url,
        save_to=tmp_path,
        timeout_seconds=JOB_SECONDS,
    )
    assert job.state == "succeeded", job.error
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: torch.zeros(3, *INPUT_SHAPE).numpy()})
    assert logits.shape == (3, NUM_CLASSES)
