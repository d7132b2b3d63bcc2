"""The fault table: every row by its name, how often the plan wants it, and where it is injected."""

import os
from dataclasses import dataclass

FULL_COUNT = 50
"""CHAOS_COUNT at which every row is run as often as the plan says."""


@dataclass(frozen=True, slots=True)
class Row:
    """One fault."""

    name: str
    group: str
    fault: str
    plan: int  # runs
    elsewhere: tuple[str, ...] = ()  # tests of other rooms that inject it


def _rows(group: str, *rows: tuple[str, str, int]) -> list[Row]:
    return [Row(name, group, fault, plan) for name, fault, plan in rows]


_JOBS = "tests/jobs"

TABLE: dict[str, Row] = {
    row.name: row
    for row in [
        *_rows(
            "processes",
            ("F01", "kill -9 of the worker's process group", 50),
            ("F02", "kill -9 of the runner only", 30),
            ("F03", "crash at a durable step of checkpoint and publication", 60),
            ("F04", "kill inside the writing of a checkpoint", 30),
            ("F05", "SIGSEGV, abort, exit 3 in the runner", 30),
            ("F06", "worker, supervisor or runner paused past the lease", 50),
            ("F07", "SIGTERM of the worker", 30),
            ("F08", "hung runner", 10),
            ("F09", "OOM killer in a control group", 10),
            ("F10", "MemoryError under RLIMIT_AS", 20),
            ("F11", "CUDA out of memory, raised as PyTorch raises it", 10),
            ("F12", "the loss becomes NaN", 10),
            ("F13", "poison job that kills its runner every time", 10),
            ("F14", "supervisor killed, runner orphaned", 30),
            ("F15", "worker dies between claim and first heartbeat", 20),
            ("F16", "worker comes back with the same host name and process id", 20),
        ),
        Row(
            "F17",
            "processes",
            "many sweepers at once",
            1,
            elsewhere=(f"{_JOBS}/ledger/test_concurrency.py::test_an_expired_lease_is_taken_back_by_one_sweep_only",),
        ),
        *_rows("processes", ("F18", "rolling upgrade with a worker of the release before", 10)),
        *_rows(
            "broker",
            ("F20", "Redis killed, comes back empty, jobs queued and running", 20),
            ("F21", "FLUSHALL during runs", 20),
            ("F22", "Redis hangs", 10),
            ("F23", "Redis absent at the start", 10),
            ("F24", "broker connections cut again and again", 100),
            ("F25", "Redis at its memory limit", 20),
            ("F26", "the same message a hundred times", 20),
            ("F27", "hostile messages in the queue, fifty in a run", 20),
            ("F28", "every message lost", 20),
            ("F29", "worker reaches neither database nor broker", 30),
        ),
        *_rows(
            "database",
            ("F30", "PostgreSQL crashes and restarts under load", 40),
            ("F31", "PostgreSQL hangs", 10),
            ("F32", "connections exhausted", 10),
            ("F33", "reply to a COMMIT lost", 50),
        ),
        Row(
            "F34",
            "database",
            "deadlock",
            1,
            elsewhere=(f"{_JOBS}/db/test_database.py::test_a_deadlock_is_tried_again",),
        ),
        Row(
            "F35",
            "database",
            "database restored from an older backup than the disk",
            1,
            elsewhere=(f"{_JOBS}/test_garbage_collector.py::test_a_database_restored_from_a_backup_costs_no_file",),
        ),
        *_rows(
            "disk",
            ("F40", "no space while uploading", 20),
            ("F41", "no space at checkpoint and publication", 10),
            ("F42", "EIO, EDQUOT, EROFS at the k-th write, fsync, rename", 27),
            ("F43", "power loss", 30),
            ("F44", "bit rot in students and checkpoints", 50),
            ("F45", "file descriptors exhausted", 10),
            ("F46", "slow disk", 10),
        ),
        *_rows(
            "time",
            ("F50", "worker's clock two hours or a day off", 20),
            ("F51", "API's clock jumps during a run", 10),
            ("F52", "database's clock jumps two hours", 20),
            ("F53", "leap day, change of year, 2038", 6),
        ),
        *_rows(
            "http",
            ("F60", "API kill -9 during an upload", 50),
            ("F61", "client disconnects during an upload", 50),
            ("F62", "API killed around the commit, client sends again with its key", 50),
            ("F63", "fifty clients, one key, at once", 100),
            ("F64", "API killed during a download", 30),
            ("F65", "slow senders and slow readers", 1),
            ("F66", "graceful shutdown under load", 20),
        ),
        *_rows(
            "cancel",
            ("F70", "cancel at a random instant", 50),
            ("F71", "cancel while Redis is down or the worker hangs", 30),
        ),
        Row(
            "F72",
            "cancel",
            "garbage collector, running jobs and the same bytes again",
            1,
            elsewhere=("tests/jobs/files/test_artifacts.py::test_nothing_is_removed_between_a_file_and_its_row",),
        ),
        *_rows("cancel", ("F73", "fifty submissions at once; quota of ten jobs, one running", 100)),
        Row(
            "F74",
            "cancel",
            "a tenant's hundred jobs before another's first",
            1,
            elsewhere=(
                f"{_JOBS}/ledger/test_scheduling.py::test_a_hundred_jobs_of_one_tenant_hold_up_nobody_for_more_than_two_slots",
            ),
        ),
        *_rows("cancel", ("F75", "delete while downloading", 30)),
        *_rows("everything", ("F80", "soak: one of the faults above every few seconds; planned in jobs", 300)),
        Row(
            "F81",
            "everything",
            "model of the state machine against the SQL",
            1,
            elsewhere=(f"{_JOBS}/ledger/test_ledger_law.py",),
        ),
    ]
}


def chaos_count() -> int | None:
    """How often to run what the plan runs FULL_COUNT times; None outside `make chaos`."""
    text = os.environ.get("CHAOS_COUNT")
    return int(text) if text else None


def runs_of(row: str, *, cheap: bool, share: float = 1.0) -> int:
    """How often to run a row now. Cheap rows follow CHAOS_CHEAP where that is more."""
    count = chaos_count()
    if count is None:
        return 1
    if cheap:
        count = max(count, int(os.environ.get("CHAOS_CHEAP", "0")))
    return max(1, round(TABLE[row].plan * share * count / FULL_COUNT))


def chaos_seed() -> int:
    """Everything random follows from it."""
    return int(os.environ.get("CHAOS_SEED", "20"))
