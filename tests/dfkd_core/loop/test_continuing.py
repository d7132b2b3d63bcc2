"""A finished run continues with a larger budget: from its last step, on the longer schedule, and reproducibly."""

from pathlib import Path
from typing import Any

import pytest

from dfkd_core.errors import CheckpointMismatch, Stopped
from dfkd_core.loop.checkpoint import CheckpointWriter, written
from dfkd_core.loop.distill import Distilled
from dfkd_core.spec.config import Budget
from tests.dfkd_core.loop.test_distill import content, run, stopping_at
from tests.dfkd_core.loop.test_time_limit import Seconds
from tests.dfkd_core.tiny import tiny_config

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


def test_a_continued_run_does_the_steps_that_are_left(finished: tuple[Distilled, Path]) -> None:
    before, path = finished
    after = go_on(path)
    assert after.student_updates == 48
    assert after.curve[: len(before.curve)] == before.curve
    assert after.curve[-1]["step"] == 48
    assert content(after) != content(before)
    assert after.warnings == []


def test_continuing_twice_gives_the_same_bytes(finished: tuple[Distilled, Path]) -> None:
    assert content(go_on(finished[1])) == content(go_on(finished[1]))


def test_an_interrupted_continuation_equals_the_uninterrupted_one(
    finished: tuple[Distilled, Path], tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        go_on(finished[1], on_step=stopping_at(3), checkpoints=CheckpointWriter(tmp_path, every_seconds=3600))
    (path,) = written(tmp_path)
    whole, resumed = go_on(finished[1]), go_on(path)
    assert content(resumed) == content(whole)
    assert resumed.curve == whole.curve


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
