"""A job's checkpoints: files in the artifact store, digests in the ledger by fenced writes. The last two are kept."""

import logging
from pathlib import Path
from typing import BinaryIO

from jobs.errors import ArtifactCorrupt, ArtifactNotFound
from worker.supervision.context import AttemptContext

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one claimed job."""

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        claim = context.claim
        digests = (claim.previous_checkpoint_sha256, claim.checkpoint_sha256)
        self._kept = [sha256 for sha256 in digests if sha256 is not None]  # oldest first

    def fetch(self, path: Path) -> Path | None:
        """Write the newest intact checkpoint to `path`. Return None if there is none: the run starts from scratch.

        Raises:
            StorageFull: this host's disk is full.
            StorageUnavailable: the artifact store does not answer.
        """
        for sha256 in reversed(self._kept):
            try:
                return self._context.artifacts.fetch(sha256, path)
            except (ArtifactCorrupt, ArtifactNotFound) as error:
                log.error("checkpoint lost", extra={"job_id": self._context.job_id, "reason": str(error)})
        return None

    def keep(self, file: BinaryIO, *, step: int) -> bool:
        """Store a new checkpoint and drop those older than the one before it. Return False if fenced out."""
        context = self._context
        with context.artifacts.keeping():
            sha256, num_bytes = context.artifacts.put(file)
            is_owner = context.store.record_checkpoint(
                context.job_id, context.fence, step=step, sha256=sha256, num_bytes=num_bytes
            )
        if not is_owner:
            context.artifacts.remove_unreferenced([sha256], context.store.referenced)
            return False
        kept = [known for known in self._kept if known != sha256] + [sha256]
        self._kept, dropped = kept[-2:], kept[:-2]
        context.artifacts.remove_unreferenced(dropped, context.store.referenced)
        return True
