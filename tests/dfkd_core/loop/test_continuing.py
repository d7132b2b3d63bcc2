"""A finished run continues with a larger budget: from its last step, on the longer schedule, and reproducibly."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from dfkd_core.errors import CheckpointMismatch, Stopped
from dfkd_core.loop.checkpoint import HEADER, CheckpointWriter, read_checkpoint, write_checkpoint, written
from dfkd_core.loop.distill import Distilled
from dfkd_core.loop.state import Run, build_run
from dfkd_core.progress import Update
from dfkd_core.spec.config import Budget
from tests.dfkd_core.loop.test_distill import content, run, stopping_at
from tests.dfkd_core.loop.test_time_limit import Seconds
from tests.dfkd_core.tiny import tiny_config, tiny_network, tiny_teacher

SHORT, LONG = Budget(steps=24), Budget(steps=48)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Distilled, Path]:
    """A run of 24 steps, and its last checkpoint."""
    directory = tmp_path_factory.mktemp("finished")
    distilled = run(tiny_config(), checkpoints=CheckpointWriter(directory, every_seconds=3600))
    return distilled, written(directory)[-1]


def go_on(path: Path, **more: Any) -> Distilled:
    config = tiny_config(budget=more.pop("budget", {"steps": 48}), **more.pop("changes", {}))
    return run(config, resume_from=path, continued_budget=more.pop("continued_budget", SHORT), **more)


@pytest.fixture(scope="module")
def continued(finished: tuple[Distilled, Path]) -> Distilled:
    """That run, continued to 48 steps without a stop."""
    return go_on(finished[1])


def test_a_continued_run_does_the_steps_that_are_left(finished: tuple[Distilled, Path], continued: Distilled) -> None:
    before, after = finished[0], continued
    assert after.student_updates == 48
    assert after.curve[: len(before.curve)] == before.curve
    assert after.curve[-1]["step"] == 48
    assert content(after) != content(before)
    assert after.warnings == []


def test_continuing_twice_gives_the_same_bytes(finished: tuple[Distilled, Path], continued: Distilled) -> None:
    assert content(go_on(finished[1])) == content(continued)


def test_an_interrupted_continuation_equals_the_uninterrupted_one(
    finished: tuple[Distilled, Path], continued: Distilled, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        go_on(finished[1], on_step=stopping_at(3), checkpoints=CheckpointWriter(tmp_path, every_seconds=3600))
    (path,) = written(tmp_path)
    resumed = go_on(path)
    assert content(resumed) == content(continued)
    assert resumed.curve == continued.curve


def restored(path: Path) -> Run:
    """A run at the checkpoint at `path`."""
    state = build_run(tiny_teacher(), tiny_network(), tiny_config())
    state.restore(read_checkpoint(path, fingerprint={}))
    return state


def test_the_final_checkpoint_leaves_out_what_can_be_drawn_again(finished: tuple[Distilled, Path]) -> None:
    kept = restored(finished[1])
    assert kept.images.procedural.is_incomplete
    assert len(kept.images.procedural) > 0
    assert not kept.images.refined.is_incomplete
    kept.images.complete()
    assert not kept.images.procedural.is_incomplete


@pytest.mark.parametrize("earlier_version", [False, True])
def test_a_checkpoint_with_all_images_gives_the_same_bytes(
    finished: tuple[Distilled, Path], continued: Distilled, tmp_path: Path, *, earlier_version: bool
) -> None:
    whole, path = restored(finished[1]), tmp_path / "whole.safetensors"
    whole.images.complete()
    state = {**whole.state(), "procedural": whole.images.procedural.state()}
    if earlier_version:
        del state["drawn"], state["procedural"]["numbers"]
    with safe_open(finished[1], framework="pt") as file:
        fingerprint = json.loads(file.metadata()[HEADER])["fingerprint"]
    write_checkpoint(path, state, fingerprint=fingerprint)
    again = go_on(path)
    assert content(again) == content(continued)
    assert again.curve == continued.curve


def test_a_stop_while_images_are_drawn_again_loses_nothing(
    finished: tuple[Distilled, Path], continued: Distilled, tmp_path: Path
) -> None:
    def at_once(update: Update) -> bool:
        return update.kind == "beat"

    writer = CheckpointWriter(tmp_path, every_seconds=3600)
    with pytest.raises(Stopped, match="step 24"):
        go_on(finished[1], on_step=at_once, beat_seconds=0.0, checkpoints=writer)
    assert restored(written(tmp_path)[-1]).images.procedural.is_incomplete
    assert content(go_on(written(tmp_path)[-1])) == content(continued)


def test_a_continued_run_has_the_same_bytes_whatever_is_drawn(tmp_path: Path) -> None:
    """Its images are drawn again, refined ones are stored; a stop changes nothing, and other images do not fit."""
    changes = {"procedural": {"kinds": ["marks", "scenes", "shapes"]}}
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    run(tiny_config(**changes), checkpoints=CheckpointWriter(first, every_seconds=3600))
    path = written(first)[-1]
    whole = go_on(path, changes=changes)
    writer = CheckpointWriter(second, every_seconds=3600)
    with pytest.raises(Stopped):
        go_on(path, changes=changes, on_step=stopping_at(3), checkpoints=writer)
    assert content(go_on(written(second)[-1], changes=changes)) == content(whole)
    with pytest.raises(CheckpointMismatch):
        go_on(path, changes={"procedural": {"kinds": ["shapes"]}})


def test_a_continued_run_can_be_continued(finished: tuple[Distilled, Path], tmp_path: Path) -> None:
    go_on(finished[1], checkpoints=CheckpointWriter(tmp_path, every_seconds=3600))
    again = go_on(written(tmp_path)[-1], budget={"steps": 60}, continued_budget=LONG)
    assert again.student_updates == 60


def test_the_seconds_are_counted_anew(finished: tuple[Distilled, Path], tmp_path: Path) -> None:
    cut, seconds = {"steps": 24, "max_seconds": 60}, Seconds(spent_when="published")
    early = run(
        tiny_config(budget=cut),
        checkpoints=CheckpointWriter(tmp_path, every_seconds=3600),
        on_step=seconds.on_step,
        clock=seconds,
    )
    assert early.student_updates < 24
    whole = go_on(
        written(tmp_path)[-1], budget={"steps": 24, "max_seconds": 3600}, continued_budget=Budget.model_validate(cut)
    )
    assert (whole.student_updates, whole.warnings) == (24, [])


def test_nothing_but_the_budget_may_differ(finished: tuple[Distilled, Path]) -> None:
    with pytest.raises(CheckpointMismatch, match="config"):
        go_on(finished[1], changes={"seed": 1})
    with pytest.raises(CheckpointMismatch, match="config"):
        go_on(finished[1], continued_budget=Budget(steps=25))
    with pytest.raises(CheckpointMismatch, match="config"):
        go_on(finished[1], continued_budget=None)
