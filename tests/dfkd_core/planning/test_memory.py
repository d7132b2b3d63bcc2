"""The memory that is planned: micro-batches bound it, and what is kept adds to it."""

from dataclasses import replace

import pytest

from dfkd_core.architectures import describe
from dfkd_core.architectures.cost import cost_of
from dfkd_core.planning.forecast import JobFacts, forecast
from dfkd_core.planning.memory import KEPT, MemoryNeed, memory_need
from dfkd_core.planning.sizes import BANK_BYTES, IN_MEMORY_BYTES, LARGE_PLACES, size_of_description
from dfkd_core.planning.work import RunFacts
from dfkd_core.planning.worker_speed import WorkerSpeed
from dfkd_core.spec.config import DistillConfig
from tests.builders import worker_speed

TEACHER = describe("resnet18", input_shape=(3, 64, 64), num_classes=10)
STUDENT = describe("resnet8", input_shape=(3, 64, 64), num_classes=10)
FACTS = JobFacts(
    RunFacts(
        teacher=size_of_description(TEACHER),
        student=size_of_description(STUDENT),
        shape=(3, 64, 64),
        num_classes=10,
        offers=frozenset({"batchnorm", "features"}),
        normalised=True,
    ),
    teacher=cost_of(TEACHER),
    student=cost_of(STUDENT),
)


GPU = worker_speed(device="NVIDIA H200", device_bytes=10**11)


def needed(speed: WorkerSpeed | None = None, facts: JobFacts = FACTS, **distillation: object) -> MemoryNeed:
    config = DistillConfig.model_validate({"method": "deepinversion", "procedural": {"share": 0.0}, **distillation})
    return memory_need(config, facts, speed or worker_speed())


def test_chunks_bound_the_activations_whatever_the_batch() -> None:
    small, large = ({"method_options": {"batch_size": size}, "training": {"batch_size": size}} for size in (16, 512))
    sizes = {"compute": {"micro_batch": 16, "chunk": 16, "label_chunk": 16}}
    assert needed(**large, **sizes).activations == needed(**small, **sizes).activations
    assert needed(**large).activations > 20 * needed(**small).activations


def test_what_the_gradient_of_figures_keeps_counts() -> None:
    few, figures = (needed(method_options={"figure_share": share}).activations for share in (0.0, 0.5))
    assert figures - few == pytest.approx(4 * KEPT * 40 * 64 * 64 * 128, rel=1e-3)


def test_what_inserted_batchnorms_keep_counts() -> None:
    without, inserted = (needed(method_options={"pseudo_statistics": kinds}).activations for kinds in ([], ["shapes"]))
    assert inserted == pytest.approx(1.25 * without, rel=1e-3)


def test_larger_banks_and_networks_need_more() -> None:
    memory = {"memory": "reservoir"}
    few, many = (needed(**memory, memory_options={"capacity": capacity}) for capacity in (100, 2000))
    assert many.images - few.images == 1900 * (3 * 64 * 64 + 20)
    assert few.total == few.base + few.weights + few.activations + few.images


def test_a_memory_that_lies_in_a_file_does_not_count() -> None:
    places = IN_MEMORY_BYTES // (3 * 64 * 64)
    none, most, more = (
        needed(memory="reservoir", memory_options={"capacity": capacity}) for capacity in (1, places, places + 1)
    )
    logits = 20 * (places + 1)
    assert none.images < more.images <= none.images + logits < most.images


def test_replayed_images_count_a_byte_where_they_were_stored_in_bytes() -> None:
    """Those of one round are taken in besides; what a decoder makes is kept as it is, and so is all on a GPU."""
    pixels = 3 * 64 * 64
    more = {"training": {"replays_per_round": 1128, "fresh_rounds": 3}}
    less = {"training": {"replays_per_round": 128, "fresh_rounds": 3}}
    stored = needed(memory="reservoir", **more).images - needed(memory="reservoir", **less).images
    made = needed(memory="vae", **more).images - needed(memory="vae", **less).images
    on_gpu = needed(GPU, memory="reservoir", **more).images - needed(GPU, memory="reservoir", **less).images
    assert (stored, made, on_gpu) == (1000 * pixels * 3, 1000 * pixels * 4 * 4, 1000 * pixels * 4 * 4)


def test_of_a_large_probe_only_the_newest_images_count() -> None:
    """The history is three quarters of a probe; if it is large, it lies in a file."""
    pixels = 3 * 64 * 64
    places = IN_MEMORY_BYTES // (2 * pixels)
    fits, exceeds = (needed(steadiness={"probe_size": size}).images for size in (4 * places // 3, 4 * places // 3 + 4))
    assert fits - exceeds == pytest.approx(IN_MEMORY_BYTES, abs=10 * pixels)


def test_a_bank_of_procedural_images_counts_what_it_keeps_in_memory() -> None:
    """What a full bank holds at most, or the logits alone where a full bank of such images lies in a file."""
    place, refined = 3 * 64 * 64 + 2 * 10, {"share": 0.0}

    def bank(capacity: int, facts: JobFacts = FACTS) -> int:
        procedural = {"share": 0.5, "capacity": capacity, "images_per_round": 2048, "refinement": refined}
        return needed(facts=facts, procedural=procedural).images - needed(facts=facts).images

    assert (bank(1000), bank(3000)) == (1000 * place, 3000 * place)
    assert bank(10_000_000) == BANK_BYTES // place * place
    at_224 = replace(FACTS, run=replace(FACTS.run, shape=(3, 224, 224)))
    assert bank(10_000_000, at_224) == LARGE_PLACES * 2 * 10


def test_on_a_gpu_the_libraries_do_not_count() -> None:
    config = DistillConfig.model_validate({"method": "deepinversion"})
    assert memory_need(config, FACTS, GPU).base < memory_need(config, FACTS, worker_speed()).base


@pytest.mark.parametrize("faster", [2.0, 10.0])
def test_a_faster_worker_takes_as_much_less_time(faster: float) -> None:
    config = DistillConfig.model_validate({"method": "deepinversion"})
    slow, fast = (forecast(config, FACTS, worker_speed(faster=factor)) for factor in (1.0, faster))
    assert fast.total_seconds == pytest.approx(slow.total_seconds / faster)
    assert 0 < slow.first_student_seconds < slow.training_seconds < slow.total_seconds
