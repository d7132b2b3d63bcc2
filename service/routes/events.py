"""/jobs/{id}/events: the history of a job, which clients read as pages or as a stream. Events are only appended."""

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from anyio import sleep, to_thread
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from dfkd.wire.event import EventPage
from service.dependencies import AppContext, Context, JobId
from service.problems.errors import FieldError, ValidationFailed
from service.representation import examples
from service.representation.openapi import problems
from service.representation.responses import json_response
from service.representation.views import event_view

router = APIRouter(prefix="/jobs/{job_id}/events", tags=["jobs"])

EVENT_STREAM = "text/event-stream"
POLL_SECONDS = 0.5
PING_SECONDS = 15.0
STREAM_SECONDS = 300.0  # the client then reconnects with Last-Event-ID; a bounded stream cannot delay a shutdown
RECONNECT_MS = 2000
PAGE = 100

After = Annotated[int, Query(ge=0, le=2**53, description="`seq` of the last event that was seen.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Events on a page; a stream ignores it.")]


@router.get(
    "",
    operation_id="list_events",
    summary="Read or follow a job's history",
    response_model=EventPage,
    openapi_extra={"parameters": examples.LAST_EVENT_ID},
    responses={200: examples.EVENTS, **problems("job-not-found", "validation-error", "unavailable")},
)
def list_events(request: Request, context: Context, job_id: JobId, after: After = 0, limit: Limit = PAGE) -> Response:
    """Returns one JSON page of the events after `after`.

    With `Accept: text/event-stream` it returns a stream instead. The stream resumes after `Last-Event-ID` and ends
    after the last event of a finished job. The service ends every stream after five minutes; a client that reconnects
    with `Last-Event-ID` misses no event.
    """
    after = _last_event_id(request, after)
    if EVENT_STREAM in request.headers.get("accept", ""):
        context.store.get(job_id)  # an unknown job must be refused here: a stream that has begun has status 200
        stream = _stream(context, job_id, after)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type=EVENT_STREAM, headers=headers)
    return json_response(read_page(context, job_id, after=after, limit=limit))


def read_page(context: AppContext, job_id: str, *, after: int, limit: int) -> EventPage:
    """A page of the events after `after`.

    The state is read before the events, because a terminal job gets no more events.
    """
    terminal = context.store.get(job_id).state.terminal
    events = [event_view(event) for event in context.store.events(job_id, after=after, limit=limit)]
    return EventPage(events=events, last_seq=events[-1].seq if events else after, terminal=terminal)


def _last_event_id(request: Request, after: int) -> int:
    text = request.headers.get("last-event-id")
    if text is None:
        return after
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        error = FieldError("", "must be the id of an event", parameter="last-event-id")
        raise ValidationFailed("The last event id is not valid.", errors=[error])
    return int(text)


async def _may_go_on(context: AppContext) -> bool:
    """True if the key of the stream is still valid. Revoking a key ends its streams."""
    assert context.caller is not None
    return await context.key_cache.still_valid(context.caller)


async def _stream(context: AppContext, job_id: str, after: int) -> AsyncIterator[str]:
    """Send new events as server-sent events. Between two reads the stream holds no thread and no connection."""
    yield f"retry: {RECONNECT_MS}\n\n"
    started = spoke = time.monotonic()
    while time.monotonic() - started < STREAM_SECONDS and not context.stopping.is_set() and await _may_go_on(context):
        page = await to_thread.run_sync(partial(read_page, context, job_id, after=after, limit=PAGE))
        for event in page.events:
            yield f"id: {event.seq}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"
        after = page.last_seq
        if page.terminal and len(page.events) < PAGE:
            return
        if page.events:
            spoke = time.monotonic()
        elif time.monotonic() - spoke > PING_SECONDS:
            yield ": still here\n\n"
            spoke = time.monotonic()
        if len(page.events) < PAGE:
            await sleep(POLL_SECONDS)
