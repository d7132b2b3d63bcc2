"""An effort becomes numbers that fill its time on the nominal machine; what the caller or a preset says stays."""

from typing import Any, get_args

import pytest

from dfkd_core.architectures import describe
from dfkd_core.architectures.cost import cost_of
from dfkd_core.inspection.inspection import BatchNormFacts, Inspection
from dfkd_core.inspection.job_facts import job_facts
from dfkd_core.inspection.resolve import resolve
from dfkd_core.inspection.run_facts import run_facts
from dfkd_core.options.registry import METHODS
from dfkd_core.planning.memory import memory_need
from dfkd_core.planning.network_costs import scaled_to
from dfkd_core.planning.nominal import NOMINAL, nominal_seconds
from dfkd_core.planning.sizes import NetworkSize, size_of_description
from dfkd_core.planning.speed import seconds_of
from dfkd_core.planning.work import work_of
from dfkd_core.spec.config import DistillConfig, DistillSpec, Effort
from tests.builders import worker_speed

EFFORTS: tuple[Effort, ...] = get_args(Effort)
MINUTES: dict[Effort, float] = {"quick": 3, "standard": 15, "thorough": 60}
SMALL = (
    ("lenet5", (1, 32, 32), False),
    ("resnet8", (3, 32, 32), True),
    ("resnet20", (3, 32, 32), True),
    ("resnet20", (3, 32, 32), False),
    ("wrn_40_2", (3, 32, 32), True),
    ("resnet18", (3, 32, 32), True),
    ("mobilenetv2", (3, 48, 48), True),
    ("vgg11", (3, 32, 32), False),
)
RESNET18_224 = {"macs": 1_814_000_000, "activation_bytes": 34_400_000, "parameters": 11_180_000}
RESNET50_224 = {"macs": 4_090_000_000, "activation_bytes": 88_000_000, "parameters": 23_500_000}


def facts(*, shape: tuple[int, int, int], batchnorm: bool, **size: int) -> Inspection:
    return Inspection(
        format="onnx",
        input_shape=list(shape),
        num_classes=10,
        operators={"Conv": 20, "Relu": 40},
        batchnorm=BatchNormFacts(status="present" if batchnorm else "folded", present=20 * batchnorm),
        offers=["features", *(["batchnorm"] if batchnorm else [])],
        **size,  # type: ignore[arg-type]
    )


def named(architecture: str, shape: tuple[int, int, int], *, batchnorm: bool) -> Inspection:
    found = describe(architecture, input_shape=shape, num_classes=10)
    size = {"macs": found.macs, "activation_bytes": 4 * found.activations, "parameters": found.parameters}
    return facts(shape=shape, batchnorm=batchnorm, **size)


LENET = named("lenet5", (1, 32, 32), batchnorm=False)
RESNET20 = named("resnet20", (3, 32, 32), batchnorm=True)


def resolved(inspection: Inspection, **distillation: Any) -> DistillSpec:
    document = {"student": {"architecture": "teacher", "width": 0.5}, "distillation": distillation}
    return resolve(DistillSpec.model_validate(document), inspection)[0]


def numbers(inspection: Inspection, **distillation: Any) -> DistillConfig:
    return resolved(inspection, **distillation).distillation


def minutes(inspection: Inspection, **distillation: Any) -> float:
    spec = resolved(inspection, **distillation)
    return seconds_of(work_of(spec.distillation, run_facts(spec, inspection, None)), NOMINAL) / 60


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize(("architecture", "shape", "batchnorm"), SMALL)
def test_small_images_take_the_minutes_of_the_effort(
    architecture: str, shape: tuple[int, int, int], batchnorm: bool, effort: Effort
) -> None:
    taken = minutes(named(architecture, shape, batchnorm=batchnorm), budget={"effort": effort})
    assert taken == pytest.approx(MINUTES[effort], rel=0.2)


@pytest.mark.parametrize("batchnorm", [True, False])
@pytest.mark.parametrize(
    ("size", "most"),
    [
        (RESNET18_224, {"quick": 20, "standard": 90, "thorough": 300}),
        (RESNET50_224, {"quick": 45, "standard": 180, "thorough": 600}),
    ],
)
def test_large_nets_take_no_more_than_was_promised(
    size: dict[str, int], most: dict[Effort, float], batchnorm: bool
) -> None:
    inspection = facts(shape=(3, 224, 224), batchnorm=batchnorm, **size)
    for effort in EFFORTS:
        assert minutes(inspection, budget={"effort": effort}) <= most[effort] / 1.2


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_takes_about_the_time_of_its_effort(method: str) -> None:
    for effort in EFFORTS:
        taken = minutes(RESNET20, method=method, budget={"effort": effort})
        assert taken == pytest.approx(MINUTES[effort], rel=0.35), effort


@pytest.mark.parametrize("batchnorm", [True, False])
@pytest.mark.parametrize("student", [{"architecture": "teacher", "width": 0.5}, {"architecture": "mobilenetv2"}])
@pytest.mark.parametrize(("size", "most_gb"), [(RESNET18_224, 3), (RESNET50_224, 6)])
def test_large_nets_need_no_more_memory_than_was_promised(
    size: dict[str, int], most_gb: float, student: dict[str, Any], batchnorm: bool
) -> None:
    inspection = facts(shape=(3, 224, 224), batchnorm=batchnorm, **size)
    known = describe("resnet18", input_shape=(3, 224, 224), num_classes=10)
    of = NetworkSize(operations=len(known.layers), **size)
    cost = scaled_to(cost_of(known), of, of=size_of_description(known))
    inspection = inspection.model_copy(update={"cost": cost})
    for effort in EFFORTS:
        document = {"student": student, "distillation": {"budget": {"effort": effort}}}
        spec, described, _ = resolve(DistillSpec.model_validate(document), inspection)
        job = job_facts(spec, inspection, described)
        assert job is not None
        assert memory_need(spec.distillation, job, worker_speed()).total <= most_gb * 1e9, effort


def test_where_nothing_is_said_the_effort_is_standard() -> None:
    assert numbers(LENET) == numbers(LENET, budget={"effort": "standard"})
    assert numbers(LENET).budget.effort == "standard"
    assert numbers(LENET).budget.steps >= 6000


@pytest.mark.parametrize("inspection", [LENET, RESNET20])
def test_more_effort_is_more_updates(inspection: Inspection) -> None:
    steps = [numbers(inspection, budget={"effort": effort}).budget.steps for effort in EFFORTS]
    assert steps == sorted(steps)
    assert steps[0] < steps[1] < steps[2]


@pytest.mark.parametrize("distillation", [{}, {"budget": {"effort": "quick"}}, {"method": "cmi"}, {"preset": "paper"}])
def test_a_resolved_spec_is_taken_as_it_is(distillation: dict[str, Any]) -> None:
    spec = resolved(RESNET20, **distillation)
    again = DistillSpec.model_validate_json(spec.model_dump_json())
    assert resolve(again, RESNET20)[0] == spec
    assert resolve(spec, RESNET20)[0] == spec


def test_steps_win_over_the_effort() -> None:
    config = numbers(LENET, budget={"steps": 123, "effort": "thorough"})
    assert (config.budget.steps, config.budget.effort) == (123, "thorough")


@pytest.mark.parametrize("inspection", [LENET, RESNET20])
@pytest.mark.parametrize("steps", [8, 500, 20_000])
def test_the_warm_up_fits_the_callers_steps_and_no_effort_changes_it(inspection: Inspection, steps: int) -> None:
    warm_ups = {
        numbers(inspection, budget={"steps": steps, "effort": effort}).method_options.warmup_rounds
        for effort in EFFORTS
    }
    assert len(warm_ups) == 1
    assert (warm_ups == {2}) == (steps == 8)


def test_few_steps_make_a_short_job_at_every_effort() -> None:
    for inspection in (LENET, RESNET20, facts(shape=(3, 224, 224), batchnorm=True, **RESNET50_224)):
        short, whole = (
            minutes(inspection, budget={"effort": "thorough", **steps}) for steps in ({"steps": 8}, dict[str, int]())
        )
        assert short < whole / 10


def test_a_warm_up_that_the_caller_gives_wins_over_the_steps() -> None:
    asked = {"method": "deepinversion", "budget": {"steps": 8}, "method_options": {"warmup_rounds": 11}}
    assert numbers(RESNET20, **asked).method_options.warmup_rounds == 11


def test_what_the_caller_sets_stays() -> None:
    asked = {
        "training": {"batch_size": 48, "updates_per_round": 7},
        "steadiness": {"probe_size": 333, "audit_size": 444, "evaluations": 3},
        "procedural": {"images_per_round": 77},
        "memory": "reservoir",
        "memory_options": {"capacity": 99},
    }
    config = numbers(facts(shape=(3, 224, 224), batchnorm=True, **RESNET50_224), **asked)
    said = config.model_dump(mode="json")
    for part, values in asked.items():
        assert values == said[part] if isinstance(values, str) else values.items() <= said[part].items()


@pytest.mark.parametrize("effort", EFFORTS)
def test_published_settings_keep_their_numbers(effort: Effort) -> None:
    paper = DistillConfig.model_validate({"method": "dafl", "preset": "paper", "budget": {"effort": effort}})
    found = numbers(LENET, method="dafl", preset="paper", budget={"effort": effort})
    assert found.model_copy(update={"compute": paper.compute}) == paper  # but the sizes of micro-batches are filled in


def test_costly_teachers_get_smaller_batches() -> None:
    costly = numbers(facts(shape=(3, 224, 224), batchnorm=True, **RESNET18_224))
    assert costly.training.batch_size < numbers(RESNET20).training.batch_size
    assert costly.steadiness.probe_size < numbers(RESNET20).steadiness.probe_size


def test_images_smaller_than_any_net_of_today_take_less_time() -> None:
    tiny = named("resnet8", (3, 8, 8), batchnorm=True)
    found = resolved(tiny, budget={"effort": "quick"})
    assert nominal_seconds("quick", run_facts(found, tiny, None)) < 60
