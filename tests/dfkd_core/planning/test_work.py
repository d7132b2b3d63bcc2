"""The predicted work is what the loop then does: images through the teacher, images made, updates, evaluations."""

from typing import Any

import pytest
from torch import nn

from dfkd_core.loop.round import train_round
from dfkd_core.loop.state import Run, build_run, counting_teacher_images
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.kinds import COSTS
from dfkd_core.options.passes import Network
from dfkd_core.options.registry import MEMORIES, METHODS
from dfkd_core.planning.rounds import Rounds
from dfkd_core.planning.sizes import NetworkSize
from dfkd_core.planning.work import RunFacts, Work, work_of
from dfkd_core.progress import Phase
from dfkd_core.spec.config import DistillConfig
from tests.dfkd_core.tiny import CLASSES, SHAPE, tiny_config, tiny_network, tiny_teacher

SMALL = {
    "batch_size": 24,
    "warmup_rounds": 3,
    "latent_dim": 6,
    "width": 4,
    "steps": 3,
    "probe_steps": 2,
    "probe_batch_size": 4,
    "negatives": 8,
}
SIZE = NetworkSize(macs=1000, activation_bytes=1000, parameters=100, operations=5)


def small_config(method: str, **changes: Any) -> DistillConfig:
    """A config of any method, with a guard that finds every batch healthy."""
    own = {name: value for name, value in SMALL.items() if name in METHODS[method].model_fields}
    usual = {"budget": {"steps": 12}, "steadiness": {"min_class_entropy": 0.0, "min_diversity": 0.0}}
    config = tiny_config(**{**usual, **changes})
    document = config.model_dump(mode="json", exclude={"method_options"})
    options = {**own, **changes.get("method_options", {})}
    return DistillConfig.model_validate({**document, "method": method, "method_options": options})


def small_student(*, batchnorm: bool) -> nn.Module:
    network = tiny_network(batchnorm=batchnorm)
    network.__dict__["classifier"] = network[-1]  # as students have it
    return network


def predicted(config: DistillConfig, teacher: Teacher) -> Work:
    return work_of(
        config,
        RunFacts(
            teacher=SIZE,
            student=SIZE,
            shape=SHAPE,
            num_classes=CLASSES,
            offers=teacher.offers,
            normalised="batchnorm" in teacher.offers,
        ),
    )


def trained(config: DistillConfig, teacher: Teacher, student: nn.Module) -> tuple[Run, int]:
    """The run after its last round, and the number of evaluations that were due."""
    run, evaluations = build_run(teacher, student, config), 0
    with counting_teacher_images(run):
        while run.counters.steps < run.schedule.total_steps:
            before = run.counters.steps
            train_round(run)
            evaluations += run.counters.steps > before and run.schedule.evaluates(before, run.counters.steps)
    return run, evaluations


def check(config: DistillConfig, *, batchnorm: bool = False) -> None:
    teacher = tiny_teacher(batchnorm=batchnorm)
    work = predicted(config, teacher)
    run, evaluations = trained(config, teacher, small_student(batchnorm=batchnorm))
    counters, rounds = run.counters, Rounds.of(config)
    assert sum(each.images(Network.TEACHER) for each in work.training) == counters.teacher_images
    assert sum(each.synthesized for each in work.training) == counters.images_synthesized
    assert work.phase(Phase.STUDENT).units == counters.steps
    assert work.phase(Phase.EVALUATION).units == evaluations
    assert rounds.warmup + rounds.teaching == counters.rounds
    for each in work.training:  # the time left is counted in these units
        if each.phase is not Phase.EVALUATION:
            assert run.pulse.work[each.phase] == pytest.approx(each.units), each.phase


@pytest.mark.parametrize("method", METHODS)
def test_the_work_of_every_method_is_predicted_exactly(method: str) -> None:
    check(small_config(method), batchnorm=True)


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_work_of_every_memory_is_predicted_exactly(memory: str) -> None:
    check(small_config("pre_dfkd", memory=memory))


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": {"steps": 25}},
        {"budget": {"steps": 3}},
        {"procedural": {"share": 0.0}},
        {"procedural": {"images_per_round": 1100, "refinement": {"share": 0.0}}},
        {"method_options": {"restart_rounds": 2}},
        {"method_options": {"warmup_rounds": 0}},
        {"training": {"augmentation": {"shift": 0.0, "rotation": 0.0, "noise": 0.0}, "valid_range": False}},
        {"training": {"feature_weight": 5.0}},
        {"training": {"block_weight": 5.0}},
        {"training": {"updates_per_round": 5, "fresh_batches": 2}},
        {"memory": "vae", "memory_options": {"feature_weight": 1.0, "prior_match_weight": 1.0, "inference_steps": 2}},
        {"compute": {"chunk": 7, "label_chunk": 9}, "memory": "vae", "memory_options": {"prior_match_weight": 1.0}},
    ],
)
@pytest.mark.parametrize("method", ["pre_dfkd", "deepinversion"])
def test_what_the_spec_changes_changes_the_prediction(method: str, changes: dict[str, Any]) -> None:
    check(small_config(method, **changes))


def test_a_teacher_that_is_inverted_with_pseudo_statistics_is_counted() -> None:
    usual = small_config("deepinversion")
    options = usual.method_options.model_copy(update={"pseudo_statistics": ["figures"]})
    looked = usual.model_copy(update={"method_options": options})
    check(looked)
    before, after = (predicted(config, tiny_teacher()).phase(Phase.PREPARE) for config in (usual, looked))
    assert after.images(Network.TEACHER) == before.images(Network.TEACHER) + 512
    assert after.drawn == before.drawn + 512 * COSTS["figures"]


@pytest.mark.parametrize(
    ("kinds", "cost"), [(["shapes"], 1.0), (["marks"], COSTS["marks"]), (["shapes", "scenes"], 2.0)]
)
def test_images_that_are_slow_to_draw_count_more(kinds: list[str], cost: float) -> None:
    plain = predicted(small_config("deepinversion"), tiny_teacher())
    drawing = predicted(small_config("deepinversion", procedural={"kinds": kinds}), tiny_teacher())
    for phase in (Phase.PROCEDURAL, Phase.REFINEMENT):
        assert drawing.phase(phase).drawn == pytest.approx(cost * plain.phase(phase).drawn)
    begun = []
    for start in ("normal", "shapes", "marks"):
        config = small_config("deepinversion")
        options = config.method_options.model_copy(update={"start": start})
        config = config.model_copy(update={"method_options": options})
        begun.append(predicted(config, tiny_teacher()).phase(Phase.WARM_UP))
    assert [each.drawn / each.synthesized for each in begun] == [0, 1, COSTS["marks"]]


def test_the_pictures_of_candidates_and_of_the_steps_of_figures_count() -> None:
    config = small_config("deepinversion")
    changes = {"steps": 10, "start": "smooth", "figure_candidates": 3}
    both = [config.method_options.model_copy(update={**changes, "figure_share": share}) for share in (0.0, 0.5)]
    none, half = (predicted(config.model_copy(update={"method_options": each}), tiny_teacher()) for each in both)
    for phase in (Phase.WARM_UP, Phase.SYNTHESIS):
        assert none.phase(phase).drawn == 0
        figures = half.phase(phase).synthesized / 2
        assert half.phase(phase).drawn == pytest.approx(figures * (3 + 1.3 * 10) * COSTS["figures"])


def test_a_long_run_is_counted_as_fast_as_a_short_one() -> None:
    work = predicted(small_config("ssd_kd", memory="priority", budget={"steps": 10_000_000}), tiny_teacher())
    assert work.phase(Phase.STUDENT).units == 10_000_000
