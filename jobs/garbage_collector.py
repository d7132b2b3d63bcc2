"""Garbage collection: files and teachers past their retention period, files that no row refers to, stale uploads.

A file that no row refers to stays for a day after the collector first found it without a row, however old it is. A
database that is restored from yesterday's backup has no rows for today's files; the operator has a day to notice this
before the files are removed.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from jobs.db.db_time import DAY_SECONDS
from jobs.errors import ArtifactNotFound
from jobs.files.artifacts import ArtifactStore
from jobs.lifecycle.retention import Expired
from jobs.metrics import JANITOR_BYTES
from jobs.store import Store

log = logging.getLogger(__name__)


Verb = Literal["expire", "quarantine", "discharge", "delete", "lost"]


@dataclass(frozen=True, slots=True)
class GcAction:
    """One action of the garbage collector. In a dry run it describes what would be done."""

    verb: Verb
    what: str  # a job, a digest, or the name of a temporary file
    why: str
    num_bytes: int = 0  # freed


def collect_garbage(
    store: Store,
    artifacts: ArtifactStore,
    *,
    retention_seconds: float,
    checkpoint_retention_seconds: float = math.inf,
    quarantine_seconds: float = DAY_SECONDS,
    dry_run: bool = False,
) -> list[GcAction]:
    """Do all pending actions and return them; with `dry_run` only return them. Any process may call this at any time.

    Checkpoints of finished jobs are kept for the shorter of the two retention periods.
    `quarantine_seconds` must be longer than the longest upload, because stale temporary files are removed after it too.
    """
    actions = []
    periods = (retention_seconds, checkpoint_retention_seconds, quarantine_seconds)
    collector = _GarbageCollector(store, artifacts, *periods, dry_run=dry_run)
    for action in (*collector.expire(), *collector.expire_teachers(), *collector.blobs(), *collector.uploads()):
        log.log(
            logging.ERROR if action.verb == "lost" else logging.INFO,
            action.verb,
            extra={"what": action.what, "why": action.why},
        )
        actions.append(action)
    if not dry_run:
        JANITOR_BYTES.inc(sum(action.num_bytes for action in actions if action.verb == "delete"))
    return actions


class _GarbageCollector:
    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        retention_seconds: float,
        checkpoint_retention_seconds: float,
        quarantine_seconds: float,
        *,
        dry_run: bool,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._retention_seconds = retention_seconds
        self._checkpoint_retention_seconds = min(retention_seconds, checkpoint_retention_seconds)
        self._quarantine_seconds = quarantine_seconds
        self._dry_run = dry_run

    def expire(self) -> Iterator[GcAction]:
        """Make the rows of finished jobs drop files past their retention period. `blobs` then removes these files."""
        periods = (self._retention_seconds, self._checkpoint_retention_seconds)
        for expiry in self._store.expirable(*periods):
            if not self._dry_run:
                self._store.expire(expiry.job_id, *periods)
            seconds = periods[0] if expiry.what is Expired.FILES else periods[1]
            ago = "" if expiry.what is Expired.SUPERSEDED else f" {seconds / DAY_SECONDS:g} days ago"
            yield GcAction("expire", expiry.job_id, f"finished{ago}: {expiry.what.value}")

    def expire_teachers(self) -> Iterator[GcAction]:
        """Remove teachers from tenants that no longer use them. `blobs` then removes files that no tenant has."""
        for unused in self._store.unused_teachers(self._retention_seconds):
            if self._dry_run or self._store.expire_teacher(unused, self._retention_seconds):
                days = f"{self._retention_seconds / DAY_SECONDS:g} days"
                yield GcAction(
                    "expire", unused.teacher_id, f"tenant {unused.tenant} has not used this teacher for {days}"
                )

    def blobs(self) -> Iterator[GcAction]:
        """Quarantine files that no row refers to, delete them a day later, and report files that rows refer to and that
        the store lacks.
        """
        blobs = set(self._artifacts.digests())
        referenced = self._store.references()  # read after the files, because a row is written after its file
        quarantined = dict(self._artifacts.blobs.quarantined())
        yield from self._lost(referenced - blobs)
        for sha256 in sorted(quarantined.keys() - (blobs - referenced)):
            if not self._dry_run:
                self._artifacts.blobs.discharge(sha256)
            yield GcAction("discharge", sha256, "a row refers to it again" if sha256 in blobs else "it is gone")
        for sha256 in sorted(blobs - referenced):
            yield from self._unreferenced(sha256, quarantined.get(sha256))

    def uploads(self) -> Iterator[GcAction]:
        """Delete temporary files of this host that were not written to for `quarantine_seconds`."""
        for path in self._artifacts.stale_uploads(self._quarantine_seconds):
            try:
                size = path.stat().st_size
                if not self._dry_run:
                    path.unlink()
            except FileNotFoundError:  # its upload has just ended
                continue
            yield GcAction(
                "delete", path.name, f"a temporary file, silent for {_hours(self._quarantine_seconds)}", size
            )

    def _lost(self, digests: set[str]) -> Iterator[GcAction]:
        for sha256 in sorted(digests):
            if not self._artifacts.exists(sha256):  # nobody has stored it meanwhile
                yield GcAction("lost", sha256, "a row refers to it, and it is not in the store")

    def _unreferenced(self, sha256: str, seconds: float | None) -> Iterator[GcAction]:
        if seconds is None:
            if not self._dry_run:
                self._artifacts.blobs.quarantine(sha256)
            yield GcAction("quarantine", sha256, "no row refers to it")
        elif seconds >= self._quarantine_seconds:
            with suppress(ArtifactNotFound):  # another process has deleted it
                size = self._artifacts.size(sha256)
                if self._dry_run or self._artifacts.remove_unreferenced([sha256], self._store.referenced):
                    yield GcAction("delete", sha256, f"no row has referred to it for {_hours(seconds)}", size)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"
