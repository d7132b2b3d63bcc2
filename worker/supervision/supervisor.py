"""The supervisor: takes one claimed job through one attempt, from its workspace to the last write in the ledger."""

import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

from dfkd_core.errors import CheckpointMismatch
from dfkd_core.sandbox.detect import find_sandbox
from dfkd_core.spec.compute import AUTO_PRECISION
from dfkd_core.spec.config import DistillSpec
from jobs.devices import class_of, served_by
from jobs.errors import ArtifactCorrupt, ArtifactNotFound, StorageFull, StorageUnavailable
from jobs.files.artifacts import ArtifactStore
from jobs.ledger.leases import Claim
from jobs.models import Job, JobError
from jobs.settings import Settings
from jobs.store import Store
from worker.measurement import Measurement
from worker.metrics import WASTED_STEPS, AttemptOutcome, count_outcome
from worker.runner import process
from worker.runner.process import RUNNER_COMMAND
from worker.runner.protocol import ErrorMessage, Task
from worker.supervision.attempt import Attempt, RunnerExit
from worker.supervision.checkpoints import Checkpoints
from worker.supervision.context import AttemptContext, remove_attempt
from worker.supervision.heartbeat import Heartbeat
from worker.supervision.oom import num_oom_kills
from worker.supervision.outcome import OutcomeHandler
from worker.supervision.progress_writer import ProgressWriter

log = logging.getLogger(__name__)

_LIVE_SWEEPS = 3  # a worker that was silent for this many sweeps does not count as alive


class Supervisor:
    """Supervises attempts, one in each thread that calls `supervise`. Keeps no state of a job between attempts."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        settings: Settings,
        *,
        worker_id: str,
        spawner: Executor,
        draining: threading.Event,
        measurement: Measurement | None = None,
        command: Sequence[str] = RUNNER_COMMAND,
    ) -> None:
        """`spawner` starts the runners and must outlive them; `command` is the runner's.

        Raises:
            SandboxUnavailable: no sandbox can be made for the runners.
        """
        self._store = store
        self._artifacts = artifacts
        self._settings = settings
        self._worker_id = worker_id
        self._draining = draining
        self._measurement = measurement
        self._start_runner = partial(
            process.start,
            command=command,
            base=os.environ,
            spawner=spawner,
            sandbox=find_sandbox(settings.sandbox),
            hidden=settings.data_dir,
            memory_bytes=settings.runner_memory_bytes,
        )
        self._deferred: set[str] = set()  # jobs left to another worker because their checkpoint did not fit this host

    def supervise(self, claim: Claim, *, claimed_at: float) -> None:
        """Make one attempt. `claimed_at` is the time of the monotonic clock just before the claim."""
        context = AttemptContext(claim, self._store, self._artifacts, self._settings)
        heartbeat = Heartbeat(context, confirmed_at=claimed_at)
        heartbeat.start()
        try:
            self._attempt(context, heartbeat)
        except Exception:
            count_outcome(AttemptOutcome.ABANDONED)
            raise
        finally:
            heartbeat.stop()
            remove_attempt(context.attempt_dir)

    def _attempt(self, context: AttemptContext, heartbeat: Heartbeat) -> None:
        progress, checkpoints = ProgressWriter(context), Checkpoints(context)
        outcome = OutcomeHandler(context, heartbeat)
        oom_kills = num_oom_kills()

        def run(task: Task) -> RunnerExit:
            attempt = Attempt(
                context, heartbeat=heartbeat, progress=progress, checkpoints=checkpoints, draining=self._draining
            )
            return attempt.run(task, self._start_runner)

        try:
            task = self._prepare(context, heartbeat, checkpoints)
            if task.resume_from is None:
                WASTED_STEPS.inc(context.claim.checkpoint_step or 0)  # the file of that checkpoint is lost
            runner_exit = run(task)
        except (StorageFull, StorageUnavailable) as error:
            outcome.give_back(f"storage: {error}", AttemptOutcome.HOST_TROUBLE)
            return
        except OSError as error:  # no space, no process, no descriptors: the job is not to blame
            log.exception("this host cannot run a job")
            outcome.give_back(f"host trouble: {type(error).__name__}", AttemptOutcome.HOST_TROUBLE)
            return
        except (ArtifactNotFound, ArtifactCorrupt) as error:
            outcome.fail(_teacher_error(error), AttemptOutcome.ERROR)
            return
        if task.resume_from is not None and _is_mismatch(runner_exit):
            if self._defer_to_other_worker(context.job):
                outcome.give_back(CheckpointMismatch.code, AttemptOutcome.MISFIT)
                return
            started_over = ("started-over", {"reason": _detail(runner_exit)})
            context.store.record(context.job_id, context.fence, events=[started_over])
            WASTED_STEPS.inc(context.claim.checkpoint_step or 0)
            runner_exit = run(self._prepare(context, heartbeat, None))
        outcome.handle(runner_exit, best=progress.best, oom_killed=num_oom_kills() > oom_kills)

    def _prepare(self, context: AttemptContext, heartbeat: Heartbeat, checkpoints: Checkpoints | None) -> Task:
        return _prepare(context, heartbeat, checkpoints, self._measurement)

    def _defer_to_other_worker(self, job: Job) -> bool:
        """Return whether another worker should get a job whose checkpoint does not fit this host: once, if one can take
        it.
        """
        if job.id in self._deferred:
            return False
        self._deferred.add(job.id)
        workers = self._store.live_workers(_LIVE_SWEEPS * self._settings.sweep_seconds)
        others = (worker for worker in workers if worker.id != self._worker_id)
        return any(job.device_class in served_by(class_of(other.device)) for other in others)


def _prepare(
    context: AttemptContext, heartbeat: Heartbeat, checkpoints: Checkpoints | None, measurement: Measurement | None
) -> Task:
    """Fetch verified copies of what the runner reads, make it an empty workspace, and return its task.

    Without `checkpoints` the run starts from scratch. A run that starts from scratch and whose precision is open is
    given this worker's tries of bfloat16.
    """
    context.make_directories()
    job, settings = context.job, context.settings
    resume_from = checkpoints and checkpoints.fetch(context.inputs / "checkpoint")
    spec = context.claim.spec.model_dump_json(include=set(DistillSpec.model_fields))
    chooses = resume_from is None and context.claim.spec.distillation.compute.precision == AUTO_PRECISION
    return Task(
        teacher_path=context.artifacts.fetch(job.teacher.id, context.inputs / "teacher"),
        spec=DistillSpec.model_validate_json(spec),
        workspace=context.workspace,
        resume_from=resume_from,
        continued_budget=job.continued_budget,
        threads=job.threads or settings.worker_threads,
        device=settings.worker_device,
        checkpoint_seconds=settings.checkpoint_seconds,
        speed=None if measurement is None else measurement.speed,
        bf16_tries=measurement.bf16_tries() if chooses and measurement is not None else (),
        messages_fd=-1,
        lease_until=heartbeat.lease_until,
    )


def _teacher_error(error: ArtifactNotFound | ArtifactCorrupt) -> JobError:
    hint = "Upload the teacher again, then submit the job again."
    if isinstance(error, ArtifactCorrupt):
        return JobError(code="artifact-corrupt", detail="the teacher's file has changed", hint=hint, stage="load")
    return JobError(code="artifact-lost", detail="the teacher's file is gone", hint=hint, stage="load")


def _is_mismatch(runner_exit: RunnerExit) -> bool:
    message = runner_exit.last_message
    return isinstance(message, ErrorMessage) and message.code == CheckpointMismatch.code


def _detail(runner_exit: RunnerExit) -> str:
    return runner_exit.last_message.detail if isinstance(runner_exit.last_message, ErrorMessage) else ""
