"""Who may send something, asked before a byte of it is read. The ledger asks again when it comes there."""

from functools import partial

from anyio import to_thread
from fastapi import Request

from service.dependencies import AppContext
from service.intake.bodies import FRAMING_BYTES
from service.intake.idempotency import IdempotentRequest
from service.intake.uploads import declared_sha256


async def admit(request: Request, context: AppContext, idempotency: IdempotentRequest) -> None:
    """QuotaExceeded where the job or teacher that comes would be refused; what was answered before is let in."""
    if idempotency.was_answered:
        return
    submits = request.scope["path"] == "/jobs"
    others_bytes = context.settings.max_spec_bytes + FRAMING_BYTES if submits else 0
    announced = int(request.headers.get("content-length", "0"))  # the gate has seen to it that this is a number
    check = partial(
        context.store.check_room,
        num_bytes=max(0, announced - others_bytes),
        teacher_id=None if submits else declared_sha256(request),
        submits=submits,
    )
    await to_thread.run_sync(check)
