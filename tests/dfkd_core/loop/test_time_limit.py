"""`budget.max_seconds` ends a run in every phase: with the best student there is, or with an error."""

import pytest

from dfkd_core.errors import TimeLimit
from dfkd_core.progress import Phase, Update
from tests.dfkd_core.loop.test_distill import run
from tests.dfkd_core.tiny import tiny_config, tiny_teacher


class Seconds:
    """A clock that stands still until an update of a kind comes, and then shows an hour more."""

    def __init__(self, spent_when: str, *, phase: Phase | None = None) -> None:
        self._kind = spent_when
        self._phase = phase  # of the update, if it matters
        self._now = 0.0
        self.published = False

    def __call__(self) -> float:
        return self._now

    def on_step(self, update: Update) -> bool:
        self.published = self.published or update.kind == "published"
        if update.kind == self._kind and self._phase in (None, update.phase):
            self._now = 3600.0
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
