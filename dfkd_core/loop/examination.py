"""Examination: the evaluation in progress, computed chunk by chunk, so that a run can stop and go on in its middle."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.images.batch import Labelled
from dfkd_core.images.student_answers import answer, chunk_of
from dfkd_core.loop.position import Position
from dfkd_core.networks.batchnorm import reestimate
from dfkd_core.networks.precision import Engine


class Examination:
    """Holds the logits that were computed of an evaluation so far. After each chunk of images comes a safe point."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._position = Position(engine.pulse)
        self._logits: dict[str, list[Tensor]] = {}  # by the name of the student

    def reestimate(self, student: nn.Module, draw: Callable[[], Tensor], *, batches: int) -> None:
        """Estimate the student's BatchNorm statistics anew on batches of images (N, C, H, W); `draw` returns one.

        Batches that were taken in before the run was resumed are not drawn again.
        """
        for number in self._position.units("statistics", batches):
            reestimate(student, [draw()], engine=self._engine, goes_on=number > 0)

    def answers(self, name: str, student: nn.Module, probe: Labelled) -> Tensor:
        """Return the student's logits (N, num_classes) on the probe; `name` tells the students apart."""
        found, size = self._logits.setdefault(name, []), chunk_of(self._engine)
        left = islice(probe.split(size), len(found), None)
        for _ in self._position.units(f"answers of {name}", -(-len(probe) // size)):
            found.append(answer(student, next(left), engine=self._engine))
        return torch.cat(found)

    def finish(self) -> None:
        """Forget what was computed: the evaluation is over."""
        self._position.begin_round()
        self._logits = {}

    def state(self) -> dict[str, Any]:
        """Return what was computed so far."""
        return {"position": self._position.state(), "logits": self._logits}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the evaluation of an earlier `state`."""
        self._position.restore(state["position"])
        self._logits = {name: list(found) for name, found in state["logits"].items()}
