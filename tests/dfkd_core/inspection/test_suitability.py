"""Which methods suit a teacher, what `auto` selects, the cost, and the advice for a better export."""

from collections.abc import Sequence
from typing import Any

import pytest

from dfkd_core.errors import RequirementError, TeacherInvalid
from dfkd_core.inspection.inspection import BatchNormFacts, Inspection, folded_warning
from dfkd_core.inspection.limits import CostLimits, check_cost
from dfkd_core.inspection.reexport import export_line, re_export
from dfkd_core.inspection.resolve import resolve
from dfkd_core.inspection.suitability import suitability
from dfkd_core.interface import TeacherInterface
from dfkd_core.options.registry import METHODS
from dfkd_core.spec.config import DistillSpec


def inspection(*offers: str, status: Any = "none", **changes: Any) -> Inspection:
    facts: dict[str, Any] = {"format": "onnx", "parameters": 10**6, "input_shape": [1, 32, 32], "num_classes": 10}
    norms = BatchNormFacts(status=status, present=int("batchnorm" in offers))
    return Inspection(**{**facts, "offers": list(offers), "batchnorm": norms, **changes})


def line_of(exporter: str | None, *, outputs: Sequence[str] = ("scores",), **interface: Any) -> str | None:
    described = TeacherInterface(input_name="x.1", output_name="scores", output_shape=[5], **interface)
    return export_line(exporter, described, outputs=outputs, shape=[3, 24, 20])


@pytest.mark.parametrize("offers", [(), ("features",), ("batchnorm",), ("batchnorm", "features")])
def test_what_is_called_served_is_what_the_door_lets_in(offers: tuple[str, ...]) -> None:
    found = suitability(inspection(*offers))
    assert sorted([*found.served, *(method.name for method in found.unserved)]) == sorted(METHODS)
    for name in METHODS:
        spec = DistillSpec.model_validate(
            {"student": {"architecture": "lenet5_half"}, "distillation": {"method": name, "preset": "default"}}
        )
        if name in found.served:
            assert resolve(spec, inspection(*offers))[0].distillation.method == name
        else:
            with pytest.raises(RequirementError):
                resolve(spec, inspection(*offers))


@pytest.mark.parametrize(
    ("status", "reason"), [("folded", "folded its"), ("unknown", "or the exporter"), ("none", "no BatchNorm layers")]
)
def test_the_reason_tells_lost_statistics_from_none(status: str, reason: str) -> None:
    unserved = {method.name: method for method in suitability(inspection("features", status=status)).unserved}
    assert unserved["ddad"].needs == ["batchnorm"]
    assert reason in unserved["ddad"].because


def test_auto_is_what_a_job_would_get() -> None:
    for facts in (inspection("features"), inspection("batchnorm"), inspection("batchnorm", macs=10**10)):
        spec = DistillSpec.model_validate({"student": {"architecture": "lenet5_half"}})
        chosen, auto = resolve(spec, facts)[0].distillation, suitability(facts).auto
        assert (chosen.method, chosen.fallback, chosen.because) == (auto.method, auto.fallback, auto.because)


def test_the_line_carries_the_names_and_the_shape_of_the_file() -> None:
    for exporter, needed in (("pytorch-dynamo", "optimize=False"), ("pytorch-legacy", "PRESERVE"), (None, "PRESERVE")):
        line = line_of(exporter)
        assert line is not None
        assert all(part in line for part in (needed, "torch.randn(2, 3, 24, 20)", "'x.1'", "'scores'", "'batch'"))
        compile(line, "line", "eval")
    assert "paddle2onnx" in str(line_of("paddle2onnx"))


@pytest.mark.parametrize("exporter", ["pytorch-dynamo", "pytorch-legacy"])
def test_the_line_names_all_outputs_in_their_order(exporter: str) -> None:
    line = str(line_of(exporter, outputs=["features", "scores"]))
    assert "output_names=['features', 'scores']" in line
    compile(line, "line", "eval")


@pytest.mark.parametrize(
    ("kind", "images"),
    [
        ("float32", "torch.randn(2, 24, 20, 3)"),
        ("float64", "torch.randn(2, 24, 20, 3, dtype=torch.float64)"),
        ("float16", "torch.randn(2, 24, 20, 3, dtype=torch.float16)"),
        ("uint8", "torch.randint(0, 256, (2, 24, 20, 3), dtype=torch.uint8)"),
    ],
)
def test_the_line_makes_images_as_the_file_takes_them(kind: str, images: str) -> None:
    assert f"({images},)" in str(line_of("pytorch-legacy", input_type=kind, layout="NHWC"))


def test_nothing_is_proposed_where_nothing_is_to_be_gained() -> None:
    assert re_export("line", batchnorm="present", batch="dynamic") is None
    found = re_export("line", batchnorm="partial", batch="fixed")
    assert found is not None
    assert len(found.because) == 2


@pytest.mark.parametrize("exporter", ["tf2onnx", "keras2onnx", "skl2onnx"])
def test_no_call_is_proposed_of_an_exporter_that_has_none_that_helps(exporter: str) -> None:
    line = line_of(exporter)
    assert re_export(line, batchnorm="folded", batch="fixed") is None
    hint = str(folded_warning("folded", line).hint)
    assert "No call of the exporter keeps the statistics" in hint


def test_a_teacher_is_held_against_the_limits_of_the_place() -> None:
    facts = inspection(macs=1000, activation_bytes=4000)
    check_cost(facts, CostLimits(macs=1000, activation_bytes=4000))
    with pytest.raises(TeacherInvalid, match="multiply-adds"):
        check_cost(facts, CostLimits(macs=999, activation_bytes=4000))
    with pytest.raises(TeacherInvalid, match="batch of 1;") as refusal:
        check_cost(facts, CostLimits(macs=1000, activation_bytes=3999))
    assert refusal.value.pointer is None


@pytest.mark.parametrize("field", ["training", "method_options"])
def test_the_largest_batch_of_the_spec_counts_and_is_pointed_at(field: str) -> None:
    facts = inspection("features", activation_bytes=1000)
    spec = DistillSpec.model_validate(
        {
            "student": {"architecture": "lenet5_half"},
            "distillation": {"method": "dafl", field: {"batch_size": 700}},
        }
    )
    check_cost(facts, CostLimits(macs=1, activation_bytes=700_000), spec=spec)
    with pytest.raises(TeacherInvalid, match="batch of 700") as refusal:
        check_cost(facts, CostLimits(macs=1, activation_bytes=699_999), spec=spec)
    assert refusal.value.pointer == f"/distillation/{field}/batch_size"
