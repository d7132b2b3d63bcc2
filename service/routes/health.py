"""/healthz: the process is alive. /readyz: jobs can be accepted; it names each dependency that does not work."""

import logging
import os
from pathlib import Path

from fastapi import APIRouter, Response

from dfkd.wire.health import Health, Readiness
from dfkd_core.errors import SandboxUnavailable
from dfkd_core.sandbox.detect import find_sandbox
from dfkd_core.sandbox.launch import SandboxKind
from jobs.broker import broker_answers
from jobs.devices import DeviceClass
from jobs.errors import LedgerError, StorageFull
from service.dependencies import AppContext, Context
from service.representation.responses import json_response

log = logging.getLogger(__name__)

router = APIRouter(tags=["service"])

SPARE_BYTES = 64 * 1024**2
NEVER_READY = ("database", "storage", "sandbox")  # the service can accept no job if one of these fails
GOOD = ("ok", "not configured", "off")


@router.get("/healthz", operation_id="healthz", summary="Is the process alive", response_model=Health)
def healthz() -> Response:
    """Answers as long as the process runs. It checks neither the database nor any other dependency."""
    return json_response(Health(status="ok"))


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Can jobs be accepted",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "No job could be accepted and kept: see `missing`."}},
)
def readyz(context: Context) -> Response:
    """Answers 503 `unavailable` if the database, the storage or the sandbox does not work.

    Without a broker or a worker jobs are delayed, so the status is `degraded` and `missing` names the broker or the
    worker. `missing` names `devices` if a queued job asks for a device class that no worker serves.
    """
    found = {"database": _database(context), "storage": _storage(context), "broker": _broker(context)}
    found |= {"sandbox": _sandbox(context), "worker": _worker(context), "devices": _devices(context)}
    missing = [name for name, state in found.items() if state.partition(":")[0] not in GOOD]
    status = "ok" if not missing else "degraded"
    if any(name in missing for name in NEVER_READY):
        status = "unavailable"
    return json_response(
        Readiness(status=status, missing=missing, checks=found), status=503 if status == "unavailable" else 200
    )


def _database(context: AppContext) -> str:
    try:
        context.ledger.ping()
    except LedgerError:
        log.warning("the database does not answer", exc_info=True)
        return "does not answer"
    return "ok"


def _storage(context: AppContext) -> str:
    """Check that files can be written and stored, and that at least SPARE_BYTES are free."""
    probe = Path(context.settings.data_dir) / f".ready-{os.getpid()}"
    try:
        probe.write_bytes(b"ready")
        probe.unlink()
        room = os.statvfs(probe.parent)
        context.artifacts.check()
    except StorageFull:
        return "full"
    except (OSError, LedgerError):
        log.warning("the storage cannot be written", exc_info=True)
        return "cannot be written"
    return "ok" if room.f_bavail * room.f_frsize >= SPARE_BYTES else "full"


def _sandbox(context: AppContext) -> str:
    """The name of the sandbox in which this process inspects teachers."""
    try:
        sandbox = find_sandbox(context.settings.sandbox)
    except SandboxUnavailable:
        return "none works; no teacher is taken"
    return "off: teachers are read without one" if sandbox.kind is SandboxKind.OFF else f"ok: {sandbox.label}"


def _broker(context: AppContext) -> str:
    if context.settings.broker_url is None:
        return "not configured"
    return "ok" if broker_answers(context.celery) else "does not answer; jobs start by polling"


def _worker(context: AppContext) -> str:
    try:
        workers = context.ledger.live_workers(context.settings.lease_seconds)
    except LedgerError:
        return "unknown"
    return "ok" if workers else "none; jobs wait"


def _devices(context: AppContext) -> str:
    """The device classes that queued jobs ask for and no worker serves."""
    try:
        unserved = context.ledger.unserved(context.settings.lease_seconds)
    except LedgerError:
        return "unknown"
    wanted = ", ".join(device_class for device_class in unserved if device_class is not DeviceClass.ANY)
    return f"no-worker-for-device: {wanted}; these jobs wait" if wanted else "ok"
