"""`budget.max_seconds` ends a run in every phase: with the best student there is, or with an error."""

import pytest

from dfkd_core.errors import TimeLimit
from dfkd_core.progress import Phase, Update
from tests.dfkd_core.loop.test_distill import run
from tests.dfkd_core.tiny import tiny_config, tiny_teacher


class Seconds:
    """A clock that stands still until an update of a kind comes, and then shows `later` seconds, an hour or less."""

    def __init__(self, spent_when: str, *, phase: Phase | None = None, later: float = 3600.0) -> None:
        self._kind = spent_when
        self._later = later
        self._phase = phase  # of the update, if it matters
        self._now = 0.0
        self.published = False

    def __call__(self) -> float:
        return self._now

    def on_step(self, update: Update) -> bool:
        self.published = self.published or update.kind == "published"
        if update.kind == self._kind and self._phase in (None, update.phase):
            self._now = self._later
        return False


def test_the_wall_clock_limit_delivers_what_there_is() -> None:
    seconds = Seconds(spent_when="published")
    config = tiny_config(budget={"steps": 10_000, "max_seconds": 60}, steadiness={"evaluations": 2500})
    distilled = run(config, on_step=seconds.on_step, clock=seconds)
    assert [warning.code for warning in distilled.warnings] == ["budget-exhausted"]
    assert distilled.student_updates < 10_000
    assert distilled.published_step == distilled.student_updates
    assert len(distilled.audit) > 0


@pytest.mark.parametrize("phase", [Phase.PROCEDURAL, Phase.REFINEMENT, Phase.WARM_UP, Phase.FRESH, Phase.STUDENT])
def test_a_time_limit_before_the_first_student_fails_the_run(phase: Phase) -> None:
    seconds = Seconds(spent_when="beat", phase=phase)
    config = tiny_config(budget={"max_seconds": 60})
    with pytest.raises(TimeLimit, match="the 60 seconds"):
        run(config, teacher=tiny_teacher(batchnorm=True), on_step=seconds.on_step, clock=seconds, beat_seconds=0)
    assert not seconds.published


@pytest.mark.parametrize(
    ("before", "behind", "exhausted"), [(0.0, 0.0, False), (25.0, 0.0, True), (0.0, 25.0, True), (0.0, 900.0, True)]
)
def test_what_comes_before_and_behind_the_loop_counts(before: float, behind: float, *, exhausted: bool) -> None:
    seconds = Seconds(spent_when="published", later=40.0)
    config = tiny_config(budget={"max_seconds": 60})
    distilled = run(
        config, on_step=seconds.on_step, clock=seconds, spent_seconds=before, reserve=lambda: behind, beat_seconds=0
    )
    assert [warning.code for warning in distilled.warnings] == ["budget-exhausted"] * exhausted
    assert (distilled.student_updates < config.budget.steps) == exhausted


def test_a_reserve_leaves_half_of_the_seconds_to_the_training() -> None:
    seconds = Seconds(spent_when="published", later=25.0)
    distilled = run(
        tiny_config(budget={"max_seconds": 60}), on_step=seconds.on_step, clock=seconds, reserve=lambda: 900.0
    )
    assert distilled.warnings == []
