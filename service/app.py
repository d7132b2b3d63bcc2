"""Builds the FastAPI application: routes, middleware and what lives as long as the process. No torch, no onnx."""

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
from service.dependencies import AppContext
from service.key_cache import KeyCache
from service.middleware.authentication import AuthenticationMiddleware
from service.middleware.early_response import EarlyResponseMiddleware
from service.middleware.header_checks import HeaderChecksMiddleware
from service.middleware.metrics import MetricsMiddleware, watch_loop
from service.middleware.rate_limits import RateLimitMiddleware
from service.middleware.request_ids import RequestIdMiddleware
from service.problems import handlers
from service.read_batcher import ReadBatcher
from service.representation import openapi
from service.routes import (
    artifacts,
    events,
    health,
    jobs,
    menu,
    metrics,
    pauses,
    plans,
    problems,
    quota,
    reruns,
    teachers,
)
from service.shutdown import set_on_stop_signal
from service.sweeper import run_maintenance

log = logging.getLogger(__name__)

DESCRIPTION = """
Send a trained image classifier, get a small ONNX student back. None of the data that the teacher was trained on is
needed, and there is no field to send it in.

Every refusal is `application/problem+json` (RFC 9457) with a permanent `code`. New fields, stages, event kinds and
warnings may appear: ignore what you do not know.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the ASGI application; `settings` are read from the environment when absent."""
    settings = settings or Settings()
    app = FastAPI(
        title="dfkd",
        version=dfkd_core.__version__,
        summary="Compress an image classifier without its training data.",
        description=DESCRIPTION,
        lifespan=_lifespan(settings),
        redirect_slashes=False,
    )
    for module in (jobs, plans, pauses, reruns, events, artifacts, teachers, quota, menu, health, metrics, problems):
        app.include_router(module.router)
    app.add_api_route("/", _to_docs, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_middleware(RateLimitMiddleware, settings=settings)
    app.add_middleware(AuthenticationMiddleware, settings=settings)
    app.add_middleware(HeaderChecksMiddleware)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(MetricsMiddleware)
    app.add_middleware(EarlyResponseMiddleware)
    handlers.install(app)
    openapi.install(app)
    return app


def _lifespan(settings: Settings):  # type: ignore[no-untyped-def]  # what asynccontextmanager makes has no short name
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Opens the ledger and starts the background tasks; stops and closes them at the end."""
        store = open_store(settings)
        try:
            _warn_if_row_security_is_bypassed(store)
            app.state.context = AppContext(
                settings=settings,
                ledger=store,
                artifacts=open_artifacts(settings),
                celery=make_celery(settings),
                key_cache=KeyCache(store.api_keys),
                read_batcher=ReadBatcher(store),
            )
            gc.freeze()  # imported modules are never freed; collections that walk them delay answers by 0.1 s
            background = [asyncio.create_task(work) for work in (run_maintenance(app.state.context), watch_loop())]
            try:
                with set_on_stop_signal(app.state.context.stopping):
                    yield
            finally:
                for task in background:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
        finally:
            store.close()

    return lifespan


def _warn_if_row_security_is_bypassed(store: Store) -> None:
    role = store.unbound_role()
    if role is not None:
        log.warning(
            "row-level security does not bind this role: a superuser or BYPASSRLS. See Keys and tenants in "
            "docs/operations.md",
            extra={"role": role},
        )


async def _to_docs() -> RedirectResponse:
    return RedirectResponse("docs")
