"""Writes what a runner reports into the ledger: at most one write a second, however often the runner reports."""

import json
import logging
import time

from pydantic import ValidationError

from dfkd_core.notice import Notice
from jobs.models import BestStudent, Progress
from worker.runner.protocol import TeacherFinding, UpdateMessage
from worker.supervision.context import AttemptContext

log = logging.getLogger(__name__)

WRITE_SECONDS = 1.0
_EVENTS_PER_WRITE = 20
_EVENT_BYTES = 2000
_EVENT_KINDS = {"stage", "published", "rolled-back", "fell-back"}  # updates that become lines of the job's history


class ProgressWriter:
    """Collects the updates of one attempt and writes them together."""

    def __init__(self, context: AttemptContext) -> None:
        self.best: BestStudent | None = None
        self._context = context
        self._progress: Progress | None = None
        self._unwritten_best: BestStudent | None = None
        self._events: list[tuple[str, dict[str, object]]] = []
        self._warnings: list[Notice] = []
        self._finding: TeacherFinding | None = None
        self._next_write = 0.0
        self._stage = ""
        self._steps = {"step": 0, "total_steps": 0}

    def add(self, update: UpdateMessage) -> None:
        """Collect one update. The newest progress replaces the one before."""
        if update.total_steps:  # only the stage of distillation counts steps
            self._steps = {"step": update.step, "total_steps": update.total_steps}
        if update.agreement is not None and update.published_step is not None:
            self.best = self._unwritten_best = BestStudent(step=update.published_step, agreement=update.agreement)
        agreement = self.best and self.best.agreement  # progress and best must show the same score
        self._progress = Progress(
            stage=update.stage,
            fraction=update.fraction,
            agreement=agreement,
            message=update.message,
            eta_seconds=update.eta_seconds,
            **self._steps,
        )
        if update.kind == "warning":
            self._add_warning(update)
        elif update.kind == "depth":
            self._add_finding(update)
        elif update.kind in _EVENT_KINDS and (update.kind != "stage" or update.stage != self._stage):
            self._add_event(update)
        self._stage = update.stage

    def write_if_due(self) -> bool:
        """Write what was collected if the last write is a second ago. Return False if fenced out."""
        if self._progress is None or time.monotonic() < self._next_write:
            return True
        self._next_write = time.monotonic() + WRITE_SECONDS
        return self.write()

    def write(self) -> bool:
        """Write what was collected. Return False if fenced out.

        Raises:
            LedgerError: the ledger does not answer. Nothing is lost: the next write repeats this one.
        """
        if self._progress is None:
            return True
        store, job_id = self._context.store, self._context.job_id
        is_owner = store.record(
            job_id,
            self._context.fence,
            progress=self._progress,
            best=self._unwritten_best,
            events=self._events,
            warnings=self._warnings,
        )
        self._progress, self._unwritten_best, self._events, self._warnings = None, None, [], []
        if is_owner and self._finding is not None:
            store.keep_depth(job_id, self._finding.model_dump(mode="json", exclude_none=True))
            self._finding = None
        return is_owner

    def _add_event(self, update: UpdateMessage) -> None:
        if len(self._events) >= _EVENTS_PER_WRITE:
            return
        data = update.data if len(json.dumps(update.data)) <= _EVENT_BYTES else {}
        self._events.append((update.kind, {"stage": update.stage, "step": update.step, **data}))

    def _add_finding(self, update: UpdateMessage) -> None:
        try:
            self._finding = TeacherFinding.model_validate(update.data)
        except ValidationError:
            log.warning("finding about the teacher refused")

    def _add_warning(self, update: UpdateMessage) -> None:
        texts = {name: update.data.get(name) for name in ("code", "detail", "hint")}
        known = {name: str(text)[:_EVENT_BYTES] for name, text in texts.items() if text is not None}
        if {"code", "detail"} <= known.keys() and len(self._warnings) < _EVENTS_PER_WRITE:
            self._warnings.append(Notice(**known))
