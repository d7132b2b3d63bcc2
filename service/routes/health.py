"""/healthz: the process lives. /readyz: what is missing, by name."""

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
from service.dependencies import Desk, OurDesk
from service.representation.responses import json_response

log = logging.getLogger(__name__)

router = APIRouter(tags=["service"])

SPARE_BYTES = 64 * 1024**2
NEVER_READY = ("database", "storage", "sandbox")  # without these no job could be accepted and kept
GOOD = ("ok", "not configured", "off")


@router.get("/healthz", operation_id="healthz", summary="Is the process alive", response_model=Health)
def healthz() -> Response:
    """Answers as long as the process does; asks nobody else."""
    return json_response(Health(status="ok"))


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Can jobs be accepted",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "No job could be accepted and kept: see `missing`."}},
)
def readyz(desk: OurDesk) -> Response:
    """503 only when the database, the storage or the sandbox does not work. A missing broker or worker delays jobs, and
    is named in `missing` with status `degraded`; so are `devices`, when no worker serves a device class that a queued
    job asks for.
    """
    found = {"database": _database(desk), "storage": _storage(desk), "broker": _broker(desk)}
    found |= {"sandbox": _sandbox(desk), "worker": _worker(desk), "devices": _devices(desk)}
    missing = [name for name, state in found.items() if state.partition(":")[0] not in GOOD]
    status = "ok" if not missing else "degraded"
    if any(name in missing for name in NEVER_READY):
        status = "unavailable"
    return json_response(
        Readiness(status=status, missing=missing, checks=found), status=503 if status == "unavailable" else 200
    )


def _database(desk: Desk) -> str:
    try:
        desk.ledger.ping()
    except LedgerError:
        log.warning("the database does not answer", exc_info=True)
        return "does not answer"
    return "ok"


def _storage(desk: Desk) -> str:
    """Files can be written here and kept for good, and there is room for more."""
    probe = Path(desk.settings.data_dir) / f".ready-{os.getpid()}"
    try:
        probe.write_bytes(b"ready")
        probe.unlink()
        room = os.statvfs(probe.parent)
        desk.artifacts.check()
    except StorageFull:
        return "full"
    except (OSError, LedgerError):
        log.warning("the storage cannot be written", exc_info=True)
        return "cannot be written"
    return "ok" if room.f_bavail * room.f_frsize >= SPARE_BYTES else "full"


def _sandbox(desk: Desk) -> str:
    """What holds the inspections of this process."""
    try:
        sandbox = find_sandbox(desk.settings.sandbox)
    except SandboxUnavailable:
        return "none works; no teacher is taken"
    return "off: teachers are read without one" if sandbox.kind is SandboxKind.OFF else f"ok: {sandbox.label}"


def _broker(desk: Desk) -> str:
    if desk.settings.broker_url is None:
        return "not configured"
    return "ok" if broker_answers(desk.celery) else "does not answer; jobs start by polling"


def _worker(desk: Desk) -> str:
    try:
        workers = desk.ledger.live_workers(desk.settings.lease_seconds)
    except LedgerError:
        return "unknown"
    return "ok" if workers else "none; jobs wait"


def _devices(desk: Desk) -> str:
    """For every device class that a queued job asks for there is a worker."""
    try:
        unserved = desk.ledger.unserved(desk.settings.lease_seconds)
    except LedgerError:
        return "unknown"
    wanted = ", ".join(device_class for device_class in unserved if device_class is not DeviceClass.ANY)
    return f"no-worker-for-device: {wanted}; these jobs wait" if wanted else "ok"
