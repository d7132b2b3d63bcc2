"""The seconds that a job is expected to take, from the work that it has to do."""

from typing import Any

import pytest

from dfkd_core.planning.forecast import Continuation, forecast, forecast_rest
from dfkd_core.planning.work import work_of
from dfkd_core.planning.worker_speed import Pass
from dfkd_core.progress import Phase
from dfkd_core.spec.config import DistillConfig
from tests.builders import worker_speed
from tests.dfkd_core.planning.test_memory import FACTS

SPEED = worker_speed()


def config_of(steps: int, **changes: Any) -> DistillConfig:
    return DistillConfig.model_validate({"method": "deepinversion", "budget": {"steps": steps}, **changes})


def test_a_continuation_takes_what_is_left() -> None:
    """A run and its continuation do together what one run does, and prepare, examine and export twice."""
    first, whole = (forecast(config_of(steps), FACTS, SPEED) for steps in (1000, 3000))
    rest = forecast_rest(config_of(3000), FACTS, SPEED, Continuation(steps=1000, draws_again=False))
    assert first.training_seconds + rest.training_seconds == pytest.approx(whole.training_seconds)
    assert rest.seconds[Phase.STUDENT] == pytest.approx(whole.seconds[Phase.STUDENT] * 2 / 3)
    assert rest.seconds[Phase.WARM_UP] == 0
    for phase in (Phase.PREPARE, Phase.EXPORT, Phase.VERIFY):
        assert rest.seconds[phase] == whole.seconds[phase]


def test_a_continuation_draws_the_procedural_images_again() -> None:
    config = config_of(3000)
    without, again = (
        forecast_rest(config, FACTS, SPEED, Continuation(steps=1000, draws_again=draws)).seconds[Phase.PREPARE]
        for draws in (False, True)
    )
    drawn = work_of(config_of(1000), FACTS.run).phase(Phase.PROCEDURAL).drawn
    assert drawn > 0
    assert again - without == pytest.approx(drawn * 3 * 64 * 64 / SPEED.passes[Pass.DRAWN])


def test_without_procedural_images_nothing_is_drawn_again() -> None:
    config, before = config_of(3000, procedural={"share": 0.0}), Continuation(steps=1000, draws_again=True)
    assert forecast_rest(config, FACTS, SPEED, before).seconds[Phase.PREPARE] == pytest.approx(
        forecast(config, FACTS, SPEED).seconds[Phase.PREPARE]
    )


def test_what_ended_before_its_first_update_is_done_as_a_whole() -> None:
    config = config_of(3000)
    rest = forecast_rest(config, FACTS, SPEED, Continuation(steps=0, draws_again=False))
    assert rest.seconds == forecast(config, FACTS, SPEED).seconds
