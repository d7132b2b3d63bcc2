"""The supervisor: takes one claimed job through one attempt, from its workspace to the last word in the ledger."""

import logging
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from dfkd_core.errors import CheckpointMismatch
from dfkd_core.sandbox.detect import find_sandbox
from dfkd_core.spec.config import DistillSpec
from jobs.devices import class_of, served_by
from jobs.errors import ArtifactCorrupt, ArtifactNotFound, JobNotFound, StorageFull, StorageUnavailable
from jobs.files.artifacts import ArtifactStore
from jobs.ledger.leases import Claim
from jobs.models import Job, JobError, JobState
from jobs.settings import Settings
from jobs.store import Store
from worker.metrics import WASTED_STEPS, Class, note_ending
from worker.runner.process import RUNNER_COMMAND
from worker.runner.protocol import ErrorMessage, Task
from worker.supervision.attempt import Attempt, Ending
from worker.supervision.checkpoints import Checkpoints
from worker.supervision.heartbeat import Heartbeat
from worker.supervision.oom import num_oom_kills
from worker.supervision.outcome import Conclusion
from worker.supervision.progress_writer import Journal

log = logging.getLogger(__name__)

GIVEN, OWN = "given", "own"
_LIVE_SWEEPS = 3  # a worker that was silent for so many sweeps does not count as another host


class Supervisor:
    """Supervises attempts, one in each thread that calls `supervise`. Holds nothing of a job between attempts.

    SandboxUnavailable where no sandbox can be made for its runners.
    """

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        settings: Settings,
        *,
        worker_id: str,
        spawner: Executor,
        draining: threading.Event,
        command: Sequence[str] = RUNNER_COMMAND,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._settings = settings
        self._worker_id = worker_id
        self._spawner = spawner
        self._draining = draining
        self._command = command
        self._sandbox = find_sandbox(settings.sandbox)
        self._passed_on: set[str] = set()  # jobs whose checkpoint did not fit this host

    def supervise(self, claim: Claim, *, claimed_at: float) -> None:
        """One attempt. `claimed_at`: the monotonic clock before the claim was asked for."""
        heartbeat = Heartbeat(self._store, claim, settings=self._settings, confirmed_at=claimed_at)
        heartbeat.start()
        desk = work_directory(self._settings) / claim.job.id / str(claim.fence)
        try:
            self._take_through(claim, heartbeat, desk)
        except Exception:
            note_ending(Class.ABANDONED)
            raise
        finally:
            heartbeat.stop()
            remove_workspace(desk)

    def _take_through(self, claim: Claim, heartbeat: Heartbeat, desk: Path) -> None:
        journal = Journal(self._store, claim)
        checkpoints = Checkpoints(self._store, self._artifacts, claim)
        conclusion = Conclusion(
            claim,
            workspace=desk / OWN,
            store=self._store,
            artifacts=self._artifacts,
            settings=self._settings,
            heartbeat=heartbeat,
        )

        def attempt(task: Task) -> Ending:
            watched = Attempt(
                claim,
                task,
                settings=self._settings,
                journal=journal,
                checkpoints=checkpoints,
                draining=self._draining,
            )
            return watched.run(
                heartbeat, command=self._command, base=os.environ, spawner=self._spawner, sandbox=self._sandbox
            )

        oom_kills = num_oom_kills()
        try:
            task = self._task(claim, heartbeat, desk, checkpoints)
            if task.resume_from is None:
                WASTED_STEPS.inc(claim.checkpoint_step or 0)  # its file is lost
            ending = attempt(task)
        except (StorageFull, StorageUnavailable) as error:
            note_ending(Class.HOST_TROUBLE)
            conclusion.give_back(f"storage: {error}")
            return
        except OSError as error:  # no space, no process, no descriptors: this host's trouble, not the job's
            log.exception("this host cannot run a job")
            note_ending(Class.HOST_TROUBLE)
            conclusion.give_back(f"host trouble: {type(error).__name__}")
            return
        except (ArtifactNotFound, ArtifactCorrupt) as error:
            note_ending(Class.ERROR)
            conclusion.fail(_teacher_error(error))
            return
        if task.resume_from is not None and _mismatched(ending):
            if self._pass_on(claim.job):
                note_ending(Class.MISFIT)
                conclusion.give_back(CheckpointMismatch.code)
                return
            self._store.record(claim.job.id, claim.fence, events=[("started-over", {"reason": _detail(ending)})])
            WASTED_STEPS.inc(claim.checkpoint_step or 0)
            ending = attempt(self._task(claim, heartbeat, desk, None))
        conclusion.conclude(ending, best=journal.best, oom_killed=num_oom_kills() > oom_kills)

    def _task(self, claim: Claim, heartbeat: Heartbeat, desk: Path, checkpoints: Checkpoints | None) -> Task:
        """What the runner is told, verified copies of what it reads, and beside them a fresh workspace of its own."""
        job, given, workspace = claim.job, desk / GIVEN, desk / OWN
        remove_workspace(desk)
        for directory in (given, workspace):
            directory.mkdir(parents=True, mode=0o700)
        resume_from = checkpoints and checkpoints.fetch(given / "checkpoint")
        return Task(
            teacher_path=self._artifacts.fetch(job.teacher.id, given / "teacher"),
            spec=DistillSpec.model_validate_json(claim.spec.model_dump_json(include=set(DistillSpec.model_fields))),
            workspace=workspace,
            resume_from=resume_from,
            continued_budget=job.continued_budget,
            threads=job.threads or self._settings.worker_threads,
            device=self._settings.worker_device,
            checkpoint_seconds=self._settings.checkpoint_seconds,
            messages_fd=-1,
            lease_until=heartbeat.lease_until,
        )

    def _pass_on(self, job: Job) -> bool:
        """Whether to leave a job with a checkpoint from elsewhere to another worker: once, and if one may take it."""
        if job.id in self._passed_on:
            return False
        self._passed_on.add(job.id)
        others = self._store.live_workers(_LIVE_SWEEPS * self._settings.sweep_seconds)
        fit = (job.device_class in served_by(class_of(other.device)) for other in others if other.id != self._worker_id)
        return any(fit)


def work_directory(settings: Settings) -> Path:
    """Where the workspaces are: work/JOB/FENCE, with what the runner is given beside what is its own."""
    return settings.data_dir.resolve() / "work"


def remove_workspace(workspace: Path) -> None:
    """Remove one attempt's files, and the job's directory with the last of them."""
    shutil.rmtree(workspace, ignore_errors=True)
    try:
        workspace.parent.rmdir()
    except OSError:
        log.debug("other attempts remain", extra={"directory": str(workspace.parent)})


def remove_stale_workspaces(settings: Settings, store: Store) -> None:
    """Remove what attempts have left whose worker was killed: all but those of the claims now running."""
    for workspace in work_directory(settings).glob("*/*"):
        try:
            job = store.get(workspace.parent.name)
        except JobNotFound:
            remove_workspace(workspace)
            continue
        if job.state is not JobState.RUNNING or workspace.name != str(job.fence):
            remove_workspace(workspace)


def _teacher_error(error: ArtifactNotFound | ArtifactCorrupt) -> JobError:
    hint = "Upload the teacher again, then submit the job again."
    if isinstance(error, ArtifactCorrupt):
        return JobError(code="artifact-corrupt", detail="the teacher's file has changed", hint=hint, stage="load")
    return JobError(code="artifact-lost", detail="the teacher's file is gone", hint=hint, stage="load")


def _mismatched(ending: Ending) -> bool:
    return isinstance(ending.last, ErrorMessage) and ending.last.code == CheckpointMismatch.code


def _detail(ending: Ending) -> str:
    return ending.last.detail if isinstance(ending.last, ErrorMessage) else ""
