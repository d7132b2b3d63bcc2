"""Concurrent polls share one read, each gets its own answer, and none waits for a slow one."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import ProgrammingError

from jobs.errors import JobNotFound, LedgerUnavailable
from jobs.identity import DEFAULT_TENANT
from jobs.models import JobWithPosition
from jobs.store import Store
from service.read_batcher import ReadBatcher
from tests.builders import submit, submit_for
from tests.patience import PATIENCE


@contextmanager
def reads(ledger: Store, *, blocked: threading.Event | None = None) -> Iterator[list[str]]:
    """The questions about jobs that the database is asked meanwhile. The first waits until `blocked` is set."""
    asked: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM jobs" in statement:
            asked.append(statement)
            if blocked is not None and len(asked) == 1:
                blocked.wait(PATIENCE)

    engine = ledger._database._engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_those_who_come_during_a_read_share_the_next(store: Store) -> None:
    jobs = [submit(store) for _ in range(5)]
    for job in jobs:
        store.request_cancel(job.id)

    async def ask() -> list[JobWithPosition]:
        read_batcher = ReadBatcher(store)
        return await asyncio.gather(
            *(read_batcher.job_with_position(None, jobs[number % 5].id) for number in range(100))
        )

    with reads(store) as asked:
        found = asyncio.run(ask())
    assert [standing.job.id for standing in found] == [jobs[number % 5].id for number in range(100)]
    assert len(asked) == 2


def test_everyone_has_an_answer_of_their_own(store: Store) -> None:
    ours, theirs = submit_for(store, tenant="a"), submit_for(store, tenant="b")

    async def ask() -> list[JobWithPosition | BaseException]:
        read_batcher = ReadBatcher(store)
        wanted = [("a", ours.id), ("a", theirs.id), ("b", theirs.id), ("b", "no such job"), (None, ours.id)]
        return await asyncio.gather(*(read_batcher.job_with_position(*each) for each in wanted), return_exceptions=True)

    own, foreign, others, absent, anybodys = asyncio.run(ask())
    assert isinstance(own, JobWithPosition)
    assert isinstance(others, JobWithPosition)
    assert (own.job.id, own.queue_position, others.job.id, others.queue_position) == (ours.id, 1, theirs.id, 2)
    assert own == anybodys == store.get_with_position(ours.id)
    assert isinstance(foreign, JobNotFound)
    assert isinstance(absent, JobNotFound)


def test_whoever_asks_after_a_change_sees_it(store: Store) -> None:
    job = submit(store)

    async def ask(read_batcher: ReadBatcher) -> JobWithPosition:
        return await read_batcher.job_with_position(DEFAULT_TENANT, job.id)

    async def main() -> list[JobWithPosition]:
        read_batcher = ReadBatcher(store)
        earlier = asyncio.create_task(ask(read_batcher))
        await asyncio.sleep(0)
        await asyncio.to_thread(store.request_cancel, job.id)
        return [await earlier, await ask(read_batcher)]

    earlier, later = asyncio.run(main())
    assert later.job.revision > job.revision
    assert earlier.job.revision in {job.revision, later.job.revision}


def test_a_read_that_hangs_holds_up_nobody_else(store: Store) -> None:
    slow, quick = submit(store), submit(store)
    over = threading.Event()

    async def main() -> None:
        read_batcher = ReadBatcher(store)
        hangs = asyncio.create_task(read_batcher.job_with_position(None, slow.id))
        while not asked:
            await asyncio.sleep(0.01)
        assert (await read_batcher.job_with_position(None, quick.id)).job.id == quick.id
        assert not hangs.done()
        over.set()
        assert (await hangs).job.id == slow.id

    with reads(store, blocked=over) as asked:
        asyncio.run(asyncio.wait_for(main(), PATIENCE / 2))  # sooner than the hanging read would end by itself


def test_whoever_goes_away_takes_nothing_from_the_others(store: Store) -> None:
    job = submit(store)

    async def main() -> JobWithPosition:
        read_batcher = ReadBatcher(store)
        gone, stays = (asyncio.create_task(read_batcher.job_with_position(None, job.id)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(main()).job.id == job.id


def test_without_the_ledger_everyone_is_told_and_the_next_is_asked_again(store: Store) -> None:
    job = submit(store)

    async def main() -> None:
        read_batcher = ReadBatcher(store)
        rename(store, "jobs", "elsewhere")
        told = await asyncio.gather(
            *(read_batcher.job_with_position(None, job.id) for _ in range(3)), return_exceptions=True
        )
        with pytest.raises((LedgerUnavailable, ProgrammingError)) as alone:  # one database says the one, one the other
            store.get(job.id)
        assert [type(error) for error in told] == [alone.type] * 3
        rename(store, "elsewhere", "jobs")
        assert (await read_batcher.job_with_position(None, job.id)).job.id == job.id

    asyncio.run(main())


def rename(ledger: Store, before: str, after: str) -> None:
    with ledger._database.connected(writes=True) as connection:
        connection.execute(text(f"ALTER TABLE {before} RENAME TO {after}"))
        connection.commit()


@pytest.mark.parametrize("tenant", [None, DEFAULT_TENANT])
def test_many_jobs_are_one_question(store: Store, tenant: str | None) -> None:
    jobs = [submit(store) for _ in range(20)]
    for job in jobs:
        store.request_cancel(job.id)
    with reads(store) as asked:
        found = store.jobs_with_positions([(tenant, job.id) for job in jobs] + [(tenant, "no such job")])
    assert {key: standing.job.id for key, standing in found.items()} == {(tenant, job.id): job.id for job in jobs}
    assert len(asked) == 1
