"""report.json: strict, documented, readable again, and honest."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dfkd_core import report
from dfkd_core.report import (
    Agreement,
    ClassAgreement,
    FileFacts,
    InputFacts,
    Latency,
    Parity,
    Report,
    StudentFacts,
    TeacherFacts,
    TeacherVerification,
    Versions,
    compression,
)
from tests.patience import PATIENCE

FACTS = [value for value in vars(report).values() if isinstance(value, type) and issubclass(value, BaseModel)]


def a_latency(median_ms: float = 0.5, **changes: Any) -> Latency:
    facts = {"p5_ms": 0.1, "p95_ms": 9.0, "repeats": 50, "threads": 1, "batch": 1, "cpu": "a processor"}
    return Latency(median_ms=median_ms, **(facts | changes))


def a_file(size: int) -> FileFacts:
    return FileFacts(sha256="ab" * 32, bytes=size)


def a_teacher(**changes: Any) -> TeacherFacts:
    facts: dict[str, Any] = {
        "file": a_file(4000),
        "format": "onnx",
        "parameters": 1000,
        "macs": 30_000,
        "latency": a_latency(2.0),
    }
    facts["depth"] = TeacherVerification(
        max_abs_diff=1e-6,
        tolerance=1e-4,
        batches=[1, 2, 7],
        gradient_error=1e-4,
        dead_input_fraction=0.0,
        outputs="logits",
    )
    return TeacherFacts(**(facts | changes))


def a_student(**changes: Any) -> StudentFacts:
    facts: dict[str, Any] = {
        "architecture": "resnet8",
        "width": 0.5,
        "options": {},
        "init": "random",
        "parameters": 250,
        "macs": 10_000,
        "onnx": a_file(1000),
        "safetensors": a_file(900),
        "latency": a_latency(0.5),
    }
    return StudentFacts(**(facts | changes))


def a_report(**changes: Any) -> Report:
    one = ClassAgreement(class_index=0, count=4, agreement=0.75)
    facts: dict[str, Any] = {
        "versions": Versions(dfkd="0.1.0", python="3.11", torch="2.13", onnx="1.23", onnxruntime="1.31", packages={}),
        "inputs": [InputFacts(name="teacher", **a_file(4000).model_dump())],
        "spec": {"student": {"architecture": "resnet8", "width": 0.5}},
        "seed": 0,
        "threads": 1,
        "device": "cpu",
        "teacher": a_teacher(),
        "student": a_student(),
        "ratios": compression(a_teacher(), a_student()),
        "agreement": Agreement(
            value=0.75,
            interval=[0.2, 0.99],
            confidence=0.95,
            n=4,
            kl_mean=0.1,
            kl_p95=0.3,
            logit_diff_mean=0.2,
            logit_diff_max=1.0,
            worst_class=one,
            per_class=[one, ClassAgreement(class_index=1, count=0, agreement=None)],
        ),
        "parity": Parity(max_abs_diff=1e-7, max_scaled_diff=1e-8, tolerance=1e-4, top1_mismatches=0, batches=[1, 2]),
        "published_step": 900,
        "probe_agreement": 0.8,
        "curve": [{"step": 100, "published": 0.5}],
        "counters": {"student_updates": 1000},
        "memory_bytes": 0,
        "warnings": [{"code": "input-range-unknown", "detail": "no mean", "hint": None}],
        "durations": {"distill": 12.5},
    }
    return Report(**(facts | changes))


def test_a_report_is_read_again_as_it_was_written() -> None:
    written = a_report()
    assert Report.model_validate_json(written.to_json()) == written


def test_a_report_says_where_agreement_comes_from_and_what_it_is_not() -> None:
    text = json.loads(a_report().to_json())
    assert text["agreement"]["source"] == "audit set: synthetic, never used to choose"
    assert "not accuracy on your data" in text["honesty"]
    assert text["schema_version"] == 1


def test_ratios_are_teacher_over_student() -> None:
    ratios = compression(a_teacher(), a_student())
    assert (ratios.parameters, ratios.macs, ratios.bytes, ratios.latency) == (4.0, 3.0, 4.0, 4.0)


def test_what_is_unknown_has_no_ratio() -> None:
    ratios = compression(a_teacher(macs=None, latency=None), a_student())
    assert ratios.macs is None
    assert ratios.latency is None


@pytest.mark.parametrize("change", [{"threads": 2}, {"batch": 8}, {"cpu": "another"}])
def test_latencies_measured_differently_are_not_compared(change: dict[str, Any]) -> None:
    assert compression(a_teacher(latency=a_latency(2.0, **change)), a_student()).latency is None


@pytest.mark.parametrize("change", [{"seed": math.nan}, {"unknown": 1}, {"published_step": -1}, {"threads": 0}])
def test_a_wrong_report_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        a_report(**change)


def test_not_a_number_is_refused_in_measurements() -> None:
    with pytest.raises(ValidationError):
        a_latency(math.nan)


@pytest.mark.parametrize("facts", FACTS, ids=lambda facts: facts.__name__)
def test_every_field_is_documented(facts: type[BaseModel]) -> None:
    assert facts.__doc__
    undocumented = [name for name, field in facts.model_fields.items() if not field.description]
    assert facts is report.Frozen or not undocumented


def test_reports_need_no_torch() -> None:
    code = "import sys, dfkd_core.report; assert not {'torch', 'onnx', 'onnxruntime', 'safetensors'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
