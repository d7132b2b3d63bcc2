"""/quota: what the caller's tenant may have, and what it has."""

from fastapi import APIRouter, Response

from dfkd.wire.quota import QuotaView, UseView
from service.dependencies import Context
from service.representation.openapi import problems
from service.representation.responses import json_response

router = APIRouter(prefix="/quota", tags=["service"])


@router.get(
    "",
    operation_id="get_quota",
    summary="Limits and use of the caller's tenant",
    response_model=QuotaView,
    responses=problems("unavailable"),
)
def get_quota(context: Context) -> Response:
    """Over a limit, POST answers 429 `quota-exceeded`; running jobs over theirs wait in the queue."""
    assert context.caller is not None
    found = context.store.quota_usage()
    uses = {quota.value: UseView(limit=use.limit or None, used=use.used) for quota, use in found.items()}
    return json_response(QuotaView(tenant=context.caller.tenant, **uses))
