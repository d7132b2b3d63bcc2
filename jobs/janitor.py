"""Tidying up: files that no row refers to any more, and temporary files that nobody writes to any more."""

import logging
from dataclasses import dataclass, field

from jobs.artifacts import ArtifactStore
from jobs.metrics import JANITOR_BYTES
from jobs.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was removed."""

    temporary: int  # temporary files
    blobs: list[str] = field(default_factory=list)  # digests


def clean(store: Store, artifacts: ArtifactStore, *, grace_seconds: float) -> Cleaned:
    """Remove what is older than `grace_seconds` and needed by nobody. Any process may do this at any time.

    The grace protects uploads under way and, after a restored database, files whose rows are missing: it should be
    longer than the longest upload, and a day is not too long.
    """
    sizes: dict[str, int] = {}

    def referenced(sha256: str) -> bool:
        needed = store.referenced(sha256)
        if not needed and artifacts.exists(sha256):
            sizes[sha256] = artifacts.size(sha256)
        return needed

    old = list(artifacts.digests(older_than_seconds=grace_seconds))
    cleaned = Cleaned(
        temporary=artifacts.sweep_temporary(grace_seconds), blobs=artifacts.remove_unreferenced(old, referenced)
    )
    JANITOR_BYTES.inc(sum(sizes[sha256] for sha256 in cleaned.blobs))
    if cleaned.temporary or cleaned.blobs:
        log.info("files removed", extra={"temporary": cleaned.temporary, "blobs": cleaned.blobs})
    return cleaned
