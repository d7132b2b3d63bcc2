"""Inputs by digest: what a report states can be computed again from the file, the spec and the code."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dfkd_core
from dfkd_core.output.provenance import code_facts, file_facts, inputs, main, spec_facts

SPEC = {"student": {"architecture": "lenet5_half"}, "name": "Käfer", "rate": 1e-05}


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    (tmp_path / "teacher.onnx").write_bytes(b"a teacher")
    return tmp_path / "teacher.onnx"


@pytest.fixture
def report(teacher: Path, tmp_path: Path) -> Path:
    """A report with the inputs of a run."""
    found = inputs(file_facts(teacher), SPEC, None)
    text = json.dumps({"spec": SPEC, "inputs": [one.model_dump() for one in found]}, indent=2)
    (tmp_path / "report.json").write_text(text)
    return tmp_path / "report.json"


def test_the_facts_of_a_file_are_those_of_its_bytes(teacher: Path) -> None:
    facts = file_facts(teacher)
    assert (facts.sha256, facts.bytes) == (hashlib.sha256(b"a teacher").hexdigest(), 9)


def test_the_digest_of_a_spec_does_not_depend_on_how_it_was_written() -> None:
    text = b'{"name":"K\\u00e4fer","rate":1e-05,"student":{"architecture":"lenet5_half"}}'
    assert spec_facts(SPEC).sha256 == hashlib.sha256(text).hexdigest()
    assert spec_facts(dict(reversed(SPEC.items()))) == spec_facts(SPEC)
    assert spec_facts({**SPEC, "name": "Kafer"}) != spec_facts(SPEC)


def test_the_digest_of_the_code_is_that_of_its_files_by_shell(tmp_path: Path) -> None:
    sources = Path(dfkd_core.__file__).parent
    shell = "find . -name '*.py' | sed 's,^./,,' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    found = subprocess.run(["sh", "-c", shell], cwd=sources, capture_output=True, text=True, check=True)
    assert found.stdout.split()[0] == code_facts().sha256
    copy = tmp_path / "dfkd_core"
    shutil.copytree(sources, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "losses.py").write_text("# another\n")
    program = "from dfkd_core.output.provenance import code_facts; print(code_facts().sha256)"
    other = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() != code_facts().sha256


def test_a_report_is_checked_by_one_command(report: Path, teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(report), "--teacher", str(teacher)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["teacher", "spec", "code"]
    teacher.write_bytes(b"another teacher")
    assert main([str(report), "--teacher", str(teacher)]) == 1
    assert capsys.readouterr().out.splitlines()[0].endswith("another")
