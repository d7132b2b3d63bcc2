"""What a runner reports, on its way into the ledger: at most one write a second, whatever the runner does."""

import json
import logging
import time

from pydantic import ValidationError

from jobs.ledger.leases import Claim
from jobs.models import BestStudent, JobWarning, Progress
from jobs.store import Store
from worker.runner.protocol import DepthFinding, UpdateMessage

log = logging.getLogger(__name__)

WRITE_SECONDS = 1.0
_EVENTS_IN_A_WRITE = 20
_EVENT_BYTES = 2000
_TOLD = {"stage", "published", "rolled-back", "fell-back"}  # kinds of updates that become lines of the job's history


class Journal:
    """Collects updates of one claim and writes them together."""

    def __init__(self, store: Store, claim: Claim) -> None:
        self.best: BestStudent | None = None
        self.num_dropped_events = 0
        self._store = store
        self._claim = claim
        self._progress: Progress | None = None
        self._unwritten_best: BestStudent | None = None
        self._events: list[tuple[str, dict[str, object]]] = []
        self._warnings: list[JobWarning] = []
        self._depth: DepthFinding | None = None
        self._next_write = 0.0
        self._stage = ""
        self._steps = {"step": 0, "total_steps": 0}

    def take(self, update: UpdateMessage) -> None:
        """Note one update; the newest progress replaces the one before."""
        if update.total_steps:  # other stages than distillation count no steps
            self._steps = {"step": update.step, "total_steps": update.total_steps}
        if update.agreement is not None and update.published_step is not None:
            self.best = self._unwritten_best = BestStudent(step=update.published_step, agreement=update.agreement)
        agreement = self.best and self.best.agreement  # one and the same score in both places, always
        self._progress = Progress(stage=update.stage, fraction=update.fraction, agreement=agreement, **self._steps)
        if update.kind == "warning":
            self._take_warning(update)
        elif update.kind == "depth":
            self._take_depth(update)
        elif update.kind in _TOLD and (update.kind != "stage" or update.stage != self._stage):
            self._take_event(update)
        self._stage = update.stage

    def write_if_due(self) -> bool:
        """Write what has come together, if the last write is a second ago. False: fenced out."""
        if self._progress is None or time.monotonic() < self._next_write:
            return True
        self._next_write = time.monotonic() + WRITE_SECONDS
        return self.write()

    def write(self) -> bool:
        """Write what has come together. False: fenced out. Nothing is forgotten where the ledger does not answer."""
        if self._progress is None:
            return True
        held = self._store.record(
            self._claim.job.id,
            self._claim.fence,
            progress=self._progress,
            best=self._unwritten_best,
            events=self._events,
            warnings=self._warnings,
        )
        self._progress, self._unwritten_best, self._events, self._warnings = None, None, [], []
        if held and self._depth is not None:
            self._store.keep_depth(self._claim.job.id, self._depth.model_dump(mode="json", exclude_none=True))
            self._depth = None
        return held

    def _take_event(self, update: UpdateMessage) -> None:
        if len(self._events) >= _EVENTS_IN_A_WRITE:
            self.num_dropped_events += 1
            return
        data = update.data if len(json.dumps(update.data)) <= _EVENT_BYTES else {}
        self._events.append((update.kind, {"stage": update.stage, "step": update.step, **data}))

    def _take_depth(self, update: UpdateMessage) -> None:
        try:
            self._depth = DepthFinding.model_validate(update.data)
        except ValidationError:
            log.warning("finding about the teacher refused")

    def _take_warning(self, update: UpdateMessage) -> None:
        texts = {name: update.data.get(name) for name in ("code", "detail", "hint")}
        known = {name: str(text)[:_EVENT_BYTES] for name, text in texts.items() if text is not None}
        if {"code", "detail"} <= known.keys() and len(self._warnings) < _EVENTS_IN_A_WRITE:
            self._warnings.append(JobWarning(**known))
