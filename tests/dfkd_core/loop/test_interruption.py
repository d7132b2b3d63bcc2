"""A run can be stopped after every step and every micro-batch, and goes on to the same bytes."""

import functools
import itertools
from pathlib import Path
from typing import Any

import pytest

from dfkd_core.errors import Stopped
from dfkd_core.loop.checkpoint import CheckpointWriter, written
from dfkd_core.loop.distill import Distilled, distill
from dfkd_core.progress import Phase, Update
from dfkd_core.spec.config import DistillConfig
from tests.dfkd_core.loop.test_distill import content, method_config
from tests.dfkd_core.methods.test_image_methods import METHODS, SMALL, tiny_student
from tests.dfkd_core.methods.test_method_contract import GENERATORS
from tests.dfkd_core.networks.test_block_matching import narrowed, whole_teacher
from tests.dfkd_core.tiny import tiny_config, tiny_network, tiny_teacher

SMALL_SIZES = {"micro_batch": 5, "chunk": 5, "label_chunk": 16}


class Stopwatch:
    """Asks for a stop at the `beat`-th update, and keeps all updates."""

    def __init__(self, beat: int | None = None) -> None:
        self.updates: list[Update] = []
        self._beat = beat

    def __call__(self, update: Update) -> bool:
        self.updates.append(update)
        return self._beat is not None and len(self.updates) >= self._beat


def run(config: DistillConfig, stopwatch: Stopwatch, *, narrow: bool = False, **more: Any) -> Distilled:
    """Run with tiny networks; if `narrow`, the student is a narrowed copy of its teacher."""
    teacher = whole_teacher(batchnorm=True) if narrow else tiny_teacher(batchnorm=True)
    usual = tiny_student if config.method_options.optimises_images else lambda: tiny_network(batchnorm=True)
    student = narrowed(teacher, [7, 2, 9]).train() if narrow else usual()
    return distill(teacher, student, config, on_step=stopwatch, beat_seconds=0, **more)


def stopped_again_and_again(
    config: DistillConfig, directory: Path, beats: list[int], *, narrow: bool = False
) -> tuple[Distilled, int]:
    """Run, stop after so many beats, resume, and so on; return the result and the number of stops.

    The beats are more than any one piece has, or the run would never get over that piece.
    """
    stops = 0
    for beat in itertools.cycle(beats):
        earlier = written(directory)
        try:
            checkpoints = CheckpointWriter(directory, every_seconds=3600)
            resumed_from = earlier[-1] if earlier else None
            stopwatch = Stopwatch(beat)
            return run(config, stopwatch, narrow=narrow, checkpoints=checkpoints, resume_from=resumed_from), stops
        except Stopped:
            stops += 1
    raise AssertionError("unreachable")


def image_config(method: str, **compute: Any) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "method": method,
            "method_options": {"warmup_rounds": 1, **SMALL[method], "adv_weight": 0.5},
            "budget": {"steps": 8},
            "training": {"batch_size": 16, "updates_per_round": 4, "replays_per_round": 16},
            "procedural": {
                "share": 0.5,
                "images_per_round": 24,
                "capacity": 200,
                "refinement": {"images_per_round": 8, "steps": 3},
            },
            "steadiness": {"probe_size": 32, "audit_size": 40, "evaluations": 2},
            "compute": compute,
        }
    )


@functools.cache
def uninterrupted(method: str, *, small_sizes: bool = False) -> tuple[Distilled, list[Update]]:
    """The run of a method without a stop, and its updates."""
    stopwatch = Stopwatch()
    return run(image_config(method, **(SMALL_SIZES if small_sizes else {})), stopwatch), stopwatch.updates


@pytest.mark.parametrize("small_sizes", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_optimises_images_can_be_stopped_at_every_step(
    method: str, tmp_path: Path, *, small_sizes: bool
) -> None:
    config = image_config(method, **(SMALL_SIZES if small_sizes else {}))
    whole, _ = uninterrupted(method, small_sizes=small_sizes)
    resumed, stops = stopped_again_and_again(config, tmp_path, [97, 53, 113])
    assert stops > 1
    assert content(resumed) == content(whole)
    assert resumed.curve == whole.curve
    assert resumed.images_synthesized == whole.images_synthesized
    assert resumed.teacher_forwards == whole.teacher_forwards


@pytest.mark.parametrize("kind", ["scenes", "marks"])
def test_images_of_any_kind_can_be_drawn_refined_and_inverted_with_stops(kind: str, tmp_path: Path) -> None:
    config = image_config("deepinversion")
    drawn = tiny_config(procedural={"share": 0.5, "kinds": [kind]}).procedural
    options = config.method_options.model_copy(update={"start": kind})
    config = config.model_copy(update={"procedural": drawn, "method_options": options})
    whole = run(config, Stopwatch())
    resumed, stops = stopped_again_and_again(config, tmp_path, [97, 113])
    assert stops > 0
    assert content(resumed) == content(whole)
    assert content(uninterrupted("deepinversion")[0]) != content(whole)


@pytest.mark.parametrize("changes", [{"figure_share": 0.5}, {"coarse_steps": 3}])
def test_figures_and_coarse_images_can_be_inverted_with_stops(changes: dict[str, Any], tmp_path: Path) -> None:
    config = image_config("deepinversion", **SMALL_SIZES)
    options = config.method_options.model_copy(update=changes)
    config = config.model_copy(update={"method_options": options})
    whole = run(config, Stopwatch())
    resumed, stops = stopped_again_and_again(config, tmp_path, [97, 53, 113])
    assert stops > 1
    assert content(resumed) == content(whole)
    assert content(uninterrupted("deepinversion", small_sizes=True)[0]) != content(whole)


@pytest.mark.parametrize("compute", [{}, SMALL_SIZES])
def test_a_student_that_learns_from_blocks_can_be_stopped_at_every_micro_batch(
    compute: dict[str, int], tmp_path: Path
) -> None:
    config = image_config("deepinversion", **compute)
    config = config.model_copy(update={"training": config.training.model_copy(update={"block_weight": 5.0})})
    whole = run(config, Stopwatch(), narrow=True)
    resumed, stops = stopped_again_and_again(config, tmp_path, [97, 53, 113], narrow=True)
    assert stops > 1
    assert content(resumed) == content(whole)
    assert resumed.curve == whole.curve
    other = run(image_config("deepinversion", **compute), Stopwatch(), narrow=True)
    assert content(other) != content(whole)


@pytest.mark.parametrize("method", GENERATORS)
def test_a_method_with_a_generator_can_be_stopped_at_every_micro_batch(method: str, tmp_path: Path) -> None:
    config = method_config(method).model_copy(update={"compute": tiny_config(compute=SMALL_SIZES).compute})
    whole = run(config, Stopwatch())
    resumed, stops = stopped_again_and_again(config, tmp_path, [97, 113])
    assert stops > 1
    assert content(resumed) == content(whole)
    assert resumed.curve == whole.curve


@pytest.mark.parametrize("memory", ["vae", "ema", "ring", "priority"])
def test_a_memory_can_be_stopped_at_every_micro_batch(memory: str, tmp_path: Path) -> None:
    config = tiny_config(memory=memory, budget={"steps": 12}, compute=SMALL_SIZES)
    whole = run(config, Stopwatch())
    resumed, stops = stopped_again_and_again(config, tmp_path, [97, 113])
    assert stops > 1
    assert content(resumed) == content(whole)
    assert resumed.curve == whole.curve


def test_every_phase_shows_that_it_works() -> None:
    _, updates = uninterrupted("deepinversion", small_sizes=True)
    seen = {update.phase for update in updates if update.kind == "beat"}
    assert seen >= {
        Phase.PROCEDURAL,
        Phase.REFINEMENT,
        Phase.WARM_UP,
        Phase.SYNTHESIS,
        Phase.FRESH,
        Phase.STUDENT,
        Phase.EVALUATION,
        Phase.AUDIT,
    }
    beats = [update.beats for update in updates]
    assert beats == sorted(beats)


def test_the_units_of_a_phase_add_up() -> None:
    distilled, updates = uninterrupted("deepinversion", small_sizes=True)
    done = {update.phase: update.done for update in updates}
    assert done[Phase.STUDENT] == distilled.student_updates
    assert done[Phase.WARM_UP] == pytest.approx(8)
    assert done[Phase.PROCEDURAL] == 24 * 3  # a round of warm-up and two that teach
    assert done[Phase.REFINEMENT] == pytest.approx(8 * 3)
    assert done[Phase.EVALUATION] == 2


def test_a_checkpoint_is_written_in_the_warm_up(tmp_path: Path) -> None:
    stopwatch = Stopwatch()
    run(image_config("deepinversion"), stopwatch, checkpoints=CheckpointWriter(tmp_path, every_seconds=0))
    kept = [update for update in stopwatch.updates if update.kind == "checkpoint"]
    phases = {update.phase for update in kept}
    assert phases >= {Phase.PROCEDURAL, Phase.REFINEMENT, Phase.WARM_UP, Phase.EVALUATION, Phase.AUDIT}
    assert any(update.done % 1 for update in kept if update.phase == Phase.WARM_UP)  # within an update
