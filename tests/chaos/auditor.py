"""The auditor: the promises of the service, judged from outside when the faults have stopped.

I1  every accepted job has ended; a submission whose outcome was unknown made exactly one job, sent again or not
I2  only allowed transitions took place; the fence of a job rises with each claim; an end is for ever
I3  at most one publication; succeeded means three files whose bytes have their digests, and nothing else means that
I4  what a client reads never goes back from an end, and progress never falls
I5  every download had the bytes that the ledger and its ETag announced
I6  the disk holds what rows refer to, and no half uploads, workspaces or runners; Redis holds nothing but bells
I7  every student has the bytes of an undisturbed run
I8  (tenants: the faults know only one, so nothing to judge; see tests/service/middleware/test_authorisation.py)
I9  a lost worker's job is taken over within the lease and a sweep, and goes on from its last checkpoint
I10 a refused request leaves nothing (judged by `Footprint`, where a test takes one before and one after)
I11 5xx only as 503 and 507 with Retry-After, and only while there is a fault
I12 reading a job stays quick while workers suffer
I13 never more jobs queued at a submission, nor running, than a tenant may have
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.evidence import Evidence, Row
from tests.chaos.history import TERMINAL, Call

GRACE_SECONDS = 5.0
FILES = {"student.onnx", "student.safetensors", "report.json"}
_BROKER_KEYS = ("dfkd", "unacked", "_kombu.")

_AFTER: dict[str, dict[str, str]] = {
    "": {"created": "queued"},
    "queued": {"claimed": "running", "cancelled": "cancelled", "failed": "failed", "paused": "paused"},
    "running": {
        "released": "queued",
        "succeeded": "succeeded",
        "failed": "failed",
        "cancelled": "cancelled",
        "paused": "paused",
        "cancel-requested": "running",
        "pause-requested": "running",
        "resumed": "running",
    },
    "paused": {"resumed": "queued", "cancelled": "cancelled"},
}
"""state → what may be written in it → the state after."""

_WHILE_RUNNING = {"stage", "published", "rolled-back", "fell-back", "checkpoint", "started-over", "warning"}


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    invariant: str
    what: str


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a service holds: taken before and after a request that is refused."""

    rows: int
    blobs: frozenset[str]
    temporary: tuple[str, ...]
    redis_keys: frozenset[str]
    descriptors: int
    children: int


def audit(evidence: Evidence) -> list[Violation]:
    """All violations."""
    return [Violation(name, what) for name, judge in JUDGES.items() for what in judge(evidence)]


def compare(before: Footprint, after: Footprint) -> list[Violation]:
    """I10: what a refused request has left."""
    names = [name for name in Footprint.__slots__ if getattr(before, name) != getattr(after, name)]
    return [Violation("I10", f"{name}: {getattr(before, name)} → {getattr(after, name)}") for name in names]


def _accepted_jobs_have_ended(evidence: Evidence) -> Iterator[str]:
    calls = evidence.history.of("submit")
    deleted = {call.job_id for call in evidence.history.of("delete") if call.outcome == "ok"}
    by_key = Counter(row.labels.get("key") for row in evidence.jobs.values())
    for key in {call.key for call in calls}:
        mine = [call for call in calls if call.key == key]
        ids = {call.job_id for call in mine if call.outcome == "ok"}
        if len(ids) > 1 or by_key[key] > 1:
            yield f"key {key} made {max(len(ids), by_key[key])} jobs"
        if not ids and any(call.outcome == "unknown" for call in mine):
            yield f"the outcome of key {key} never became known"
        if not ids and by_key[key] and all(call.outcome == "refused" and call.status != 503 for call in mine):
            yield f"key {key} was refused and made a job"
        for job_id in ids - deleted:
            if job_id not in evidence.jobs:
                yield f"job {job_id} was accepted and is not in the ledger"
    for row in evidence.jobs.values():
        if row.state not in TERMINAL:
            yield f"job {row.id} is still {row.state}"


def _transitions_are_allowed(evidence: Evidence) -> Iterator[str]:
    for row in evidence.jobs.values():
        yield from (f"job {row.id}: {what}" for what in _wrong_turns(row))


def _wrong_turns(row: Row) -> Iterator[str]:
    state, fence = "", 0
    if [event.seq for event in row.events] != list(range(1, len(row.events) + 1)):
        yield "its history has gaps"
    for event in row.events:
        expected = fence + 1 if event.kind == "claimed" else fence
        if event.fence != expected:
            yield f"{event.kind} at fence {event.fence} instead of {expected}"
        fence = event.fence
        if event.kind in _WHILE_RUNNING:
            if state != "running":
                yield f"{event.kind} while {state or 'unborn'}"
        elif event.kind not in _AFTER.get(state, {}):
            yield f"{event.kind} while {state or 'unborn'}"
        else:
            state = _AFTER[state][event.kind]
    if (state, fence) != (row.state, row.fence):
        yield f"its history ends {state} at fence {fence}, its row is {row.state} at {row.fence}"


def _published_once_and_whole(evidence: Evidence) -> Iterator[str]:
    for row in evidence.jobs.values():
        published = sum(event.kind == "succeeded" for event in row.events)
        if published != (row.state == "succeeded"):
            yield f"job {row.id} is {row.state} and was published {published} times"
        if row.files.keys() != (FILES if row.state == "succeeded" else set()):
            yield f"job {row.id} is {row.state} and has {sorted(row.files)}"
        for name, sha256 in row.files.items():
            if evidence.blobs.get(sha256) != sha256:
                yield f"{name} of job {row.id} is {'damaged' if sha256 in evidence.blobs else 'missing'}"


def _what_is_read_never_goes_back(evidence: Evidence) -> Iterator[str]:
    calls = [call for call in evidence.history.of("get", "submit", "cancel") if call.state is not None]
    by_job: dict[str | None, list[Call]] = {}
    for call in calls:
        by_job.setdefault(call.job_id, []).append(call)
    for job_id, mine in by_job.items():
        began = sorted(mine, key=lambda call: call.began_at)
        ended = sorted(mine, key=lambda call: call.ended_at)
        end, fraction, position = None, 0.0, 0
        for call in began:
            while ended[position].ended_at < call.began_at:  # known before this one was asked
                before = ended[position]
                end = before.state if before.state in TERMINAL else end
                fraction = max(fraction, before.fraction)
                position += 1
            if end is not None and call.verb != "submit" and call.state != end:
                yield f"job {job_id} was {end}, then {call.state}"
            if call.verb == "get" and call.fraction < fraction:
                yield f"progress of job {job_id} fell from {fraction} to {call.fraction}"


def _downloads_are_what_was_announced(evidence: Evidence) -> Iterator[str]:
    for call in evidence.history.of("download"):
        row = evidence.jobs.get(call.job_id or "")
        if call.outcome == "ok" and row is not None:
            announced = row.files.get(call.name or "")
            if not call.sha256 == call.etag == announced:
                yield f"{call.name} of job {call.job_id}: {call.sha256}, ETag {call.etag}, ledger {announced}"


def _nothing_is_left_behind(evidence: Evidence) -> Iterator[str]:
    wanted = set(evidence.teachers)
    for row in evidence.jobs.values():
        wanted |= {*row.files.values(), *row.checkpoints}
    yield from (f"file {name} belongs to no row" for name in evidence.blobs.keys() - wanted)
    yield from (f"file {name} is missing" for name in wanted - evidence.blobs.keys())
    yield from (f"half an upload: {name}" for name in evidence.temporary)
    yield from (f"a workspace: {name}" for name in evidence.workspaces)
    yield from (f"a runner: {line}" for line in evidence.runners)
    yield from (f"Redis has {key!r}" for key in evidence.redis_keys if not key.startswith(_BROKER_KEYS))
    if evidence.bells_left:
        yield f"{evidence.bells_left} bells that nobody has taken"


def _students_are_the_reference(evidence: Evidence) -> Iterator[str]:
    for row in evidence.jobs.values():
        wanted = evidence.students.get(row.labels.get("recipe", ""))
        if row.state == "succeeded" and wanted is not None and row.files.get("student.onnx") != wanted:
            yield f"the student of job {row.id} is not that of an undisturbed run"


def _little_is_lost(evidence: Evidence) -> Iterator[str]:
    if evidence.takeover_seconds is not None:
        for job_id, seconds in takeovers(evidence):
            if seconds is None or seconds > evidence.takeover_seconds:
                yield f"job {job_id} was taken over after {seconds} s"
    if evidence.checkpoint_steps is not None:
        for job_id, steps in wasted_steps(evidence):
            if steps > evidence.checkpoint_steps:
                yield f"job {job_id} lost {steps} steps"


def takeovers(evidence: Evidence) -> Iterator[tuple[str, float | None]]:
    """Job, and seconds from the loss of its worker to the next claim; None: never. Jobs that ended first: none."""
    for job_id, lost_at in evidence.history.losses:
        row = evidence.jobs[job_id]
        later = [event for event in row.events if event.at >= lost_at]
        claimed = next((event.at for event in later if event.kind == "claimed"), None)
        if claimed is not None or row.state not in TERMINAL:
            yield job_id, None if claimed is None else claimed - lost_at


def wasted_steps(evidence: Evidence) -> Iterator[tuple[str, int]]:
    """Job, and steps that a client had seen done and that a later attempt did again, for each attempt that was lost."""
    to_epoch = time.time() - time.monotonic()
    for row in evidence.jobs.values():
        seen = [(call.ended_at + to_epoch, call.step) for call in evidence.history.of("get") if call.job_id == row.id]
        kept, since = 0, 0.0
        for event in row.events:
            if event.kind == "checkpoint":
                kept = int(event.data["step"])
            elif event.kind == "claimed":
                reached = max((step for at, step in seen if since < at < event.at), default=0)
                yield row.id, max(0, reached - kept)
                since = event.at


def _only_honest_errors(evidence: Evidence) -> Iterator[str]:
    history = evidence.history
    for call in history.calls:
        if call.status is None or call.status < 500 or call.code in history.expected_codes:
            continue
        if call.status not in {503, 507} or not call.retry_after:
            yield f"{call.verb} was answered {call.status} {call.code}"
        elif not history.disturbed(call, grace_seconds=GRACE_SECONDS):
            yield f"{call.verb} was answered {call.status} {call.code} without a fault"


def _reading_stays_quick(evidence: Evidence) -> Iterator[str]:
    if evidence.get_seconds is None:
        return
    calm = [
        call.seconds
        for call in evidence.history.of("get")
        if call.outcome == "ok" and not evidence.history.disturbed(call, grace_seconds=0.0)
    ]
    slow = sorted(calm)[int(0.99 * len(calm))] if calm else 0.0
    if slow > evidence.get_seconds:
        yield f"99 % of the reads took up to {slow:.3f} s"


def _quotas_are_kept(evidence: Evidence) -> Iterator[str]:
    """By the history of all jobs together; what came back to the queue is no submission."""
    state: dict[str, str] = {}
    lines = [(event.at, event.seq, row.id, event.kind) for row in evidence.jobs.values() for event in row.events]
    for _, _, job_id, kind in sorted(lines):
        before = state.get(job_id, "")
        after = state[job_id] = _AFTER.get(before, {}).get(kind, before)
        counted = Counter(state.values())
        num = counted[after] + (counted["paused"] if after == "queued" else 0)
        if kind in {"created", "claimed"} and num > evidence.quotas.get(after, num):
            yield f"{num} jobs were {after} when job {job_id} was {kind}"


JUDGES: dict[str, Callable[[Evidence], Iterator[str]]] = {
    "I1": _accepted_jobs_have_ended,
    "I2": _transitions_are_allowed,
    "I3": _published_once_and_whole,
    "I4": _what_is_read_never_goes_back,
    "I5": _downloads_are_what_was_announced,
    "I6": _nothing_is_left_behind,
    "I7": _students_are_the_reference,
    "I9": _little_is_lost,
    "I11": _only_honest_errors,
    "I12": _reading_stays_quick,
    "I13": _quotas_are_kept,
}
