"""Checkpoints between attempts: in the artifact store by digest, in the ledger by fenced writes, the last two kept."""

import logging
from pathlib import Path
from typing import BinaryIO

from jobs.errors import ArtifactCorrupt, ArtifactNotFound
from jobs.files.artifacts import ArtifactStore
from jobs.ledger.leases import Claim
from jobs.store import Store

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one claimed job."""

    def __init__(self, store: Store, artifacts: ArtifactStore, claim: Claim) -> None:
        self._store = store
        self._artifacts = artifacts
        self._claim = claim
        found = (claim.previous_checkpoint_sha256, claim.checkpoint_sha256)
        self._kept = [sha256 for sha256 in found if sha256 is not None]  # oldest first

    def fetch(self, path: Path) -> Path | None:
        """Write the newest checkpoint whose bytes are still the ones that were kept to `path`.

        None: there is none, start from the beginning. StorageFull, StorageUnavailable.
        """
        for sha256 in reversed(self._kept):
            try:
                return self._artifacts.fetch(sha256, path)
            except (ArtifactCorrupt, ArtifactNotFound) as error:
                log.error("checkpoint lost", extra={"job_id": self._claim.job.id, "reason": str(error)})
        return None

    def keep(self, file: BinaryIO, *, step: int) -> bool:
        """Resume from this file from now on; drop what is older than the one before. False: fenced out."""
        with self._artifacts.keeping():
            sha256, _ = self._artifacts.put(file)
            held = self._store.record_checkpoint(self._claim.job.id, self._claim.fence, step=step, sha256=sha256)
        if not held:
            self._artifacts.remove_unreferenced([sha256], self._store.referenced)
            return False
        kept = [known for known in self._kept if known != sha256] + [sha256]
        self._kept, dropped = kept[-2:], kept[:-2]
        self._artifacts.remove_unreferenced(dropped, self._store.referenced)
        return True
