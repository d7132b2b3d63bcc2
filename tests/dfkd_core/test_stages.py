"""The stages of a job: each can be stopped at a beat, and those before the training end with the job's seconds."""

import pytest

from dfkd_core.errors import Stopped, TimeLimit
from dfkd_core.progress import Update
from dfkd_core.pulse import Pulse
from dfkd_core.stages import StageReporter


class Caller:
    """Keeps the updates, and asks for a stop as soon as one is of the kind and the stage."""

    def __init__(self, *, stops_in: str | None = None) -> None:
        self.updates: list[Update] = []
        self._stage = stops_in

    def __call__(self, update: Update) -> bool:
        self.updates.append(update)
        return (update.kind, update.stage) == ("beat", self._stage)


@pytest.mark.parametrize("stage", ["load", "inspect", "export", "verify"])
def test_a_stage_beats_and_can_be_stopped(stage: str) -> None:
    caller = Caller(stops_in=stage)
    reporter = StageReporter(caller, beat_seconds=0)
    with pytest.raises(Stopped), reporter.stage(stage):
        Pulse(reporter).beat()
    assert [(update.kind, update.stage) for update in caller.updates] == [("stage", stage), ("beat", stage)]


def test_what_must_not_be_interrupted_is_stopped_behind_it() -> None:
    reporter = StageReporter(Caller(stops_in="export"), beat_seconds=0)
    pulse = Pulse(reporter)
    with reporter.stage("export"):
        with pulse.undisturbed():
            pulse.beat()
        with pytest.raises(Stopped):
            pulse.beat()


@pytest.mark.parametrize(("stage", "ends"), [("load", True), ("inspect", True), ("export", False), ("verify", False)])
def test_the_seconds_of_a_job_end_what_comes_before_the_training(stage: str, *, ends: bool) -> None:
    times = [100.0]
    reporter = StageReporter(Caller(), limit_seconds=60.0, now=lambda: times[-1])
    times.append(161.0)
    with reporter.stage(stage):
        if ends:
            with pytest.raises(TimeLimit, match="the 60 seconds"):
                Pulse(reporter).beat()
        else:
            Pulse(reporter).beat()  # what is delivered is whole
