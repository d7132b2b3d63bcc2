"""/quota: the limits of the caller's tenant, and how much of each limit is used."""

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
    """If a tenant exceeds a limit, POST answers 429 `quota-exceeded`. Over the limit of running jobs, jobs wait in the
    queue instead.
    """
    assert context.caller is not None
    found = context.store.quota_usage()
    uses = {quota.value: UseView(limit=use.limit or None, used=use.used) for quota, use in found.items()}
    return json_response(QuotaView(tenant=context.caller.tenant, **uses))
