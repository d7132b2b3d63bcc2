"""Coverage-guided fuzzing, bounded and seeded: readers of uploaded files raise only our own refusals."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.door.inputs import INPUTS
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def fuzz(target: str, *, runs: int, seconds: int) -> str:
    """What libFuzzer reports; a crash, a hang or a stranger's exception fails."""
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python")
    command = [sys.executable, "-m", "tests.door.fuzz", target, "--runs", str(runs), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=seconds + PATIENCE)
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stderr


def test_a_short_run_finds_nothing() -> None:
    assert "seed corpus" in fuzz("all", runs=800, seconds=10)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["safetensors", "onnx-wire", "importer", "plan"])
def test_a_longer_run_finds_nothing(target: str) -> None:
    fuzz(target, runs=1_000_000, seconds=120)


def test_the_fuzzer_starts_from_the_table() -> None:
    from tests.door.door import Octets

    assert sum(isinstance(entry.send, Octets) for entry in INPUTS) > 150
