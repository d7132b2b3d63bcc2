"""What every part of one attempt works with, and where the attempt keeps its files."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import JobNotFound
from jobs.files.artifacts import ArtifactStore
from jobs.ledger.leases import Claim
from jobs.models import Job, JobState
from jobs.settings import Settings
from jobs.store import Store

log = logging.getLogger(__name__)

INPUTS, WORKSPACE = "inputs", "workspace"


@dataclass(frozen=True, slots=True)
class AttemptContext:
    """One claimed job, with the ledger, the artifact store and the settings of the worker that claimed it."""

    claim: Claim
    store: Store
    artifacts: ArtifactStore
    settings: Settings

    @property
    def job(self) -> Job:
        """The job as it was when it was claimed."""
        return self.claim.job

    @property
    def job_id(self) -> str:
        """The job's id, which every write carries."""
        return self.claim.job.id

    @property
    def fence(self) -> int:
        """The fencing token, which every write carries too."""
        return self.claim.fence

    @property
    def attempt_dir(self) -> Path:
        """The directory of this attempt's files: work/JOB/FENCE in the data directory."""
        return _work_dir(self.settings) / self.job_id / str(self.fence)

    @property
    def inputs(self) -> Path:
        """The directory of the files that the runner reads: teacher and checkpoint."""
        return self.attempt_dir / INPUTS

    @property
    def workspace(self) -> Path:
        """The directory that the runner writes to."""
        return self.attempt_dir / WORKSPACE

    def make_directories(self) -> None:
        """Make the inputs and the workspace, both empty."""
        remove_attempt(self.attempt_dir)
        for directory in (self.inputs, self.workspace):
            directory.mkdir(parents=True, mode=0o700)


def remove_attempt(attempt_dir: Path) -> None:
    """Remove one attempt's files, and the job's directory with the last of them."""
    shutil.rmtree(attempt_dir, ignore_errors=True)
    try:
        attempt_dir.parent.rmdir()
    except OSError:
        log.debug("other attempts remain", extra={"directory": str(attempt_dir.parent)})


def remove_stale_attempts(settings: Settings, store: Store) -> None:
    """Remove the files of attempts whose worker was killed: all files but those of the claims that are running."""
    for attempt_dir in _work_dir(settings).glob("*/*"):
        try:
            job = store.get(attempt_dir.parent.name)
        except JobNotFound:
            remove_attempt(attempt_dir)
            continue
        if job.state is not JobState.RUNNING or attempt_dir.name != str(job.fence):
            remove_attempt(attempt_dir)


def _work_dir(settings: Settings) -> Path:
    return settings.data_dir.resolve() / "work"
