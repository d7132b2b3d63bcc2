"""What routes depend on: one `AppContext` per process, built in the lifespan and found through the request.

The dependencies are coroutines because they never block; FastAPI would run plain functions in its thread pool.
"""

import re
import threading
from dataclasses import dataclass, field, replace
from typing import Annotated

from anyio import CapacityLimiter
from celery import Celery
from fastapi import Depends, Path, Request

from jobs.digests import is_digest
from jobs.errors import JobNotFound, TeacherNotFound
from jobs.files.artifacts import ArtifactStore
from jobs.identity import Caller
from jobs.models import JobWithPosition
from jobs.settings import Settings
from jobs.store import Store
from jobs.tenant_store import TenantStore
from service.key_cache import KeyCache
from service.read_batcher import ReadBatcher

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

MAX_INSPECTIONS = 2  # at the same time: each child process may use `inspection_memory_bytes`


@dataclass(frozen=True, slots=True)
class AppContext:
    """Ledger, file store, queue, key cache and settings; `caller` is set for the time of one request."""

    settings: Settings
    ledger: Store  # of all tenants, for the service's own work; requests use `store`
    artifacts: ArtifactStore
    celery: Celery
    key_cache: KeyCache
    read_batcher: ReadBatcher
    caller: Caller | None = None  # None on public paths
    stopping: threading.Event = field(default_factory=threading.Event)  # set when the server is about to stop
    inspections: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(MAX_INSPECTIONS))

    @property
    def store(self) -> TenantStore:
        """The ledger as the caller's tenant sees it."""
        assert self.caller is not None  # public routes read no tenant's data
        return self.ledger.of(self.caller)

    async def job_with_position(self, job_id: str) -> JobWithPosition:
        """Return a job of the caller with its place in the queue. JobNotFound; LedgerUnavailable."""
        assert self.caller is not None
        return await self.read_batcher.job_with_position(self.caller.tenant, job_id)


async def app_context(request: Request) -> AppContext:
    """Return the context of the application that serves this request, with its caller."""
    context = request.app.state.context
    assert isinstance(context, AppContext)
    caller = request.state.caller
    return replace(context, caller=caller and replace(caller, request_id=request.state.request_id))


async def job_id_of(job_id: Annotated[str, Path(description="The id that POST /jobs gave.")]) -> str:
    """Return the job id, if it has the form of one; only such ids are passed to the database."""
    if not _UUID.fullmatch(job_id):
        raise JobNotFound(job_id)
    return job_id


async def teacher_id_of(teacher_id: Annotated[str, Path(description="sha256 of the teacher's file.")]) -> str:
    """Return the teacher id, if it has the form of one; only such ids are passed to the database."""
    if not is_digest(teacher_id):
        raise TeacherNotFound(teacher_id)
    return teacher_id


Context = Annotated[AppContext, Depends(app_context)]
JobId = Annotated[str, Depends(job_id_of)]
TeacherId = Annotated[str, Depends(teacher_id_of)]
