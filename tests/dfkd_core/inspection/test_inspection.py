"""The inspection: it needs no torch, runs in a confined child process, and describes the file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from dfkd_core.errors import FormatUnsupported, OperatorUnsupported, TeacherInvalid, TeacherMismatch
from dfkd_core.inspection import child
from dfkd_core.inspection.child import inspect_in_child
from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from tests.dfkd_core.onnx_models import classifier, node, save
from tests.patience import PATIENCE
from tests.sandboxes import VARIABLE

SANDBOX = os.environ.get(VARIABLE, "auto")
GENEROUS = {"timeout_seconds": PATIENCE, "memory_bytes": 4 * 2**30, "sandbox": SANDBOX}
HEAVY = ("torch", "onnx", "onnxruntime", "safetensors", "numpy")


def loaded(code: str, *arguments: str) -> set[str]:
    """Top-level modules of HEAVY that a fresh interpreter holds after running the code."""
    report = (
        f"\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}} & set({HEAVY}))))"
    )
    command = [sys.executable, "-c", code + report, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    return set(json.loads(done.stdout))


def test_the_torch_free_face_imports_nothing_heavy() -> None:
    assert (
        loaded(
            "import dfkd_core.inspection.formats.detection, dfkd_core.inspection.child, dfkd_core.inspection.resolve"
        )
        == set()
    )


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_an_inspection_needs_no_torch(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "teacher"
    save(classifier(), path) if kind == "onnx" else save_file({"w": np.zeros((2, 2), np.float32)}, path)
    code = (
        "import sys; from pathlib import Path; from dfkd_core.inspection.inspection import inspect_file; "
        "from dfkd_core.spec.teacher import TeacherSpec; inspect_file(Path(sys.argv[1]), TeacherSpec())"
    )
    assert loaded(code, str(path)) <= {"onnx", "numpy"}


def test_the_parent_of_an_inspection_stays_light(tmp_path: Path) -> None:
    path = save(classifier(), tmp_path / "teacher.onnx")
    code = (
        "import sys; from pathlib import Path; from dfkd_core.inspection.child import inspect_in_child; "
        "from dfkd_core.spec.teacher import TeacherSpec; "
        "limits = {'timeout_seconds': 60, 'memory_bytes': 2**32}; "
        "found = inspect_in_child(Path(sys.argv[1]), TeacherSpec(), **limits, sandbox=sys.argv[2]); "
        "assert found.num_classes == 5"
    )
    assert loaded(code, str(path), SANDBOX) == set()


def test_the_child_says_what_the_same_process_would(tmp_path: Path) -> None:
    path = save(classifier(), tmp_path / "teacher.onnx")
    spec = TeacherSpec(input=InputSpec(shape=[4, 4, 6]))
    found = inspect_in_child(path, spec, **GENEROUS)
    assert found == inspect_with_input_space(path, spec)[0]
    assert found.input_space is not None
    assert found.input_shape == [4, 4, 6]
    assert found.parameters == 8 * 4 * 9 + 8 + 5 * 8 + 5
    assert found.macs == 8 * 4 * 9 * 24 + 40
    assert (found.opset, found.batch, found.num_classes) == (18, "dynamic", 5)
    assert (found.input_name, found.output_name) == ("images", "logits")
    assert found.operators == {"Conv": 1, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1, "Relu": 1}
    assert found.offers == ["features"]
    assert found.batchnorm.status == "none"


def test_refusals_cross_the_process_whole(tmp_path: Path) -> None:
    path = save(classifier([node("TopK", ["scores"], ["logits"])]), tmp_path / "teacher.onnx")
    with pytest.raises(OperatorUnsupported) as refusal:
        inspect_in_child(path, TeacherSpec(), **GENEROUS)
    assert refusal.value.nodes == ["the_logits: TopK — not on the list"]
    assert refusal.value.hint is not None
    with pytest.raises(TeacherMismatch) as mismatch:
        inspect_in_child(path, TeacherSpec(format="safetensors"), **GENEROUS)
    assert mismatch.value.pointer == "/teacher/format"
    path.write_bytes(b"PK\x03\x04 archive/data.pkl")
    with pytest.raises(FormatUnsupported):
        inspect_in_child(path, TeacherSpec(), **GENEROUS)


def endless(path: Path) -> Path:
    """A file whose reader waits for ever."""
    os.mkfifo(path)
    return path


def test_a_child_that_is_too_slow_is_killed(tmp_path: Path) -> None:
    path = endless(tmp_path / "teacher.onnx")
    with pytest.raises(TeacherInvalid, match="too long"):
        inspect_in_child(path, TeacherSpec(), timeout_seconds=0.05, memory_bytes=2**32, sandbox=SANDBOX)


def test_a_child_without_memory_is_an_ordinary_refusal(tmp_path: Path) -> None:
    path = save(classifier(), tmp_path / "teacher.onnx")
    with pytest.raises(TeacherInvalid, match=r"crashed|too large"):
        inspect_in_child(path, TeacherSpec(), timeout_seconds=PATIENCE, memory_bytes=48 * 2**20, sandbox=SANDBOX)


def test_a_file_that_would_not_fit_is_refused_by_its_size(tmp_path: Path) -> None:
    path = save(classifier(), tmp_path / "teacher.onnx")
    with path.open("r+b") as file:
        file.truncate(300 * 2**20)  # a hole: no disk is used
    with pytest.raises(TeacherInvalid, match="too large") as refusal:
        inspect_in_child(path, TeacherSpec(), timeout_seconds=PATIENCE, memory_bytes=2**30, sandbox=SANDBOX)
    assert "204 MiB" in str(refusal.value.hint)


def test_the_child_takes_no_code_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(planted))
    inspect_in_child(save(classifier(), tmp_path / "teacher.onnx"), TeacherSpec(), **GENEROUS)
    assert not (tmp_path / "canary").exists()


def test_no_process_and_no_descriptor_is_left(tmp_path: Path) -> None:
    good, slow = save(classifier(), tmp_path / "teacher.onnx"), endless(tmp_path / "slow.onnx")
    before, children = len(os.listdir("/proc/self/fd")), set(psutil.Process().children(recursive=True))
    inspect_in_child(good, TeacherSpec(), **GENEROUS)
    with pytest.raises(TeacherInvalid, match="too long"):
        inspect_in_child(slow, TeacherSpec(), timeout_seconds=0.05, memory_bytes=2**32, sandbox=SANDBOX)
    assert len(os.listdir("/proc/self/fd")) == before
    assert set(psutil.Process().children(recursive=True)) <= children


@pytest.mark.parametrize(
    "reply",
    [
        b"[" * 5000,
        b"[]",
        b'{"inspection": {"format": "onnx"}}',
        b'{"error": {"class": "SandboxUnavailable", "detail": "d", "hint": "h", "pointer": null}}',
        b'{"error": {"class": "OperatorUnsupported", "detail": "d"}}',
        b'{"error": {"class": ["TeacherInvalid"]}}',
    ],
)
def test_an_answer_without_the_form_of_one_is_that_of_a_crash(reply: bytes) -> None:
    """A child that a file has taken over may say anything."""
    with pytest.raises(TeacherInvalid, match="crashed"):
        child._result(reply, 0, late=False)
