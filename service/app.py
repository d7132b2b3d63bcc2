"""The front desk: takes a teacher in, hands a student out. No torch, no onnx in this process."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from starlette.responses import RedirectResponse

import dfkd_core
from jobs.broker import make_celery
from jobs.files.artifacts import open_artifacts
from jobs.settings import Settings
from jobs.store import Store, open_store
from service.dependencies import Desk
from service.key_cache import KeyRing
from service.middleware.authentication import Gate
from service.middleware.early_response import Unread
from service.middleware.header_checks import RequestLines
from service.middleware.metrics import Measured, watch_loop
from service.middleware.rate_limits import RateLimits
from service.middleware.request_ids import RequestIds
from service.problems import handlers
from service.read_batcher import Together
from service.representation import openapi
from service.routes import artifacts, events, health, jobs, menu, metrics, pauses, problems, quota, reruns, teachers
from service.shutdown import told_of_stop
from service.sweeper import keep_house

log = logging.getLogger(__name__)

DESCRIPTION = """
Send a trained image classifier, get a small ONNX student back. None of the data that the teacher was trained on is
needed, and there is no field to send it in.

Every refusal is `application/problem+json` (RFC 9457) with a permanent `code`. New fields, stages, event kinds and
warnings may appear: ignore what you do not know.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI application; `settings` are read from the environment when absent."""
    settings = settings or Settings()
    app = FastAPI(
        title="dfkd",
        version=dfkd_core.__version__,
        summary="Compress an image classifier without its training data.",
        description=DESCRIPTION,
        lifespan=_lifespan(settings),
        redirect_slashes=False,
    )
    for module in (jobs, pauses, reruns, events, artifacts, teachers, quota, menu, health, metrics, problems):
        app.include_router(module.router)
    app.add_api_route("/", _to_docs, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_middleware(RateLimits, settings=settings)
    app.add_middleware(Gate, settings=settings)
    app.add_middleware(RequestLines)
    app.add_middleware(RequestIds)
    app.add_middleware(Measured)
    app.add_middleware(Unread)
    handlers.install(app)
    openapi.install(app)
    return app


def _lifespan(settings: Settings):  # type: ignore[no-untyped-def]  # what asynccontextmanager makes has no short name
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Everything that is opened here is closed here."""
        store = open_store(settings)
        try:
            _tell_of_missing_wall(store)
            keyring = KeyRing(store.api_keys)
            together = Together(store)
            app.state.desk = Desk(settings, store, open_artifacts(settings), make_celery(settings), keyring, together)
            gc.freeze()  # what was imported stays; to walk it again and again would hold up answers by 0.1 s
            helpers = [asyncio.create_task(work) for work in (keep_house(app.state.desk), watch_loop())]
            try:
                with told_of_stop(app.state.desk.stopping):
                    yield
            finally:
                for helper in helpers:
                    helper.cancel()
                    with suppress(asyncio.CancelledError):
                        await helper
        finally:
            store.close()

    return lifespan


def _tell_of_missing_wall(store: Store) -> None:
    role = store.unbound_role()
    if role is not None:
        log.warning(
            "row-level security does not bind this role: a superuser or BYPASSRLS. See Keys and tenants in "
            "docs/operations.md",
            extra={"role": role},
        )


async def _to_docs() -> RedirectResponse:
    return RedirectResponse("docs")
