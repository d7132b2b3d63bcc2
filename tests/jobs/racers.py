"""Processes that do the same to one ledger at the same moment: `python -m tests.jobs.racers ACT URL NUMBER`.

One process loads the libraries and forks the racers, which costs less than a start of Python for each of them.
"""

import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from jobs.errors import QuotaExceeded
from jobs.identity import Caller
from jobs.ledger.leases import Claim
from jobs.settings import Settings
from jobs.store import Store, open_store
from tests.builders import job_spec, teacher_ref
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
TRIES = 8  # of a racer that wants to get past a limit

Act = Callable[[str, str], Iterator[Any]]
"""Takes the ledger's URL and the racer's name; yields None where all wait for each other, and its result at the end."""


def race(act: str, url: str, *, number: int) -> list[Any]:
    """The results of `number` processes that do `act` at the same moment."""
    command = [sys.executable, "-W", "error", "-m", "tests.jobs.racers", act, url, str(number)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    results: list[Any] = json.loads(done.stdout)
    return results


def _opened(url: str) -> Store:
    return open_store(Settings(database_url=url))


def claims_all(url: str, name: str) -> Iterator[Any]:
    """Claim, renew and sometimes finish jobs until there are no more; everybody has one before anybody has two."""
    claims = []

    def work_on(claim: Claim) -> None:
        assert store.heartbeat(claim.job.id, claim.fence, 60) is not None
        claims.append((claim.job.id, claim.fence))
        if len(claims) % 2:
            assert store.succeed(claim.job.id, claim.fence, artifacts=[])

    with closing(_opened(url)) as store:
        yield None
        first = store.claim(name, 60, 1)
        assert first is not None
        work_on(first)
        yield None
        while (claim := store.claim(name, 60, 1)) is not None:
            work_on(claim)
    yield claims


def claims_some(url: str, name: str) -> Iterator[Any]:
    """Claim several times; yield how often there was a job."""
    with closing(_opened(url)) as store:
        yield None
        done = sum(store.claim(name, 60, 1) is not None for _ in range(TRIES))
    yield done


def submits_some(url: str, name: str) -> Iterator[Any]:
    """Submit several jobs of tenant `a`, each with a teacher of its own; yield how many were taken."""
    with closing(_opened(url)) as store:
        yield None
        done = 0
        for _ in range(TRIES):
            try:
                store.of(Caller("a")).create(str(uuid.uuid4()), job_spec(), teacher_ref(str(uuid.uuid4())))
                done += 1
            except QuotaExceeded:
                pass
    yield done


def opens(url: str, name: str) -> Iterator[Any]:
    """Open the ledger, whatever is there."""
    yield None
    _opened(url).close()
    yield "opened"


ACTS: dict[str, Act] = {act.__name__: act for act in (claims_all, claims_some, submits_some, opens)}


def _run(act: Act, url: str, name: str, line: socket.socket) -> None:
    """One racer: says so where it waits, and goes on when it is told to."""
    with line.makefile("rw") as file:
        for result in act(url, name):
            file.write(json.dumps(result) + "\n")
            file.flush()
            if result is None:
                file.readline()


def main(act: str, url: str, number: int) -> None:
    """Fork the racers, let them go together, print their results."""
    lines = []
    for index in range(number):
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            ours.close()
            status = 1
            try:
                _run(ACTS[act], url, f"racer {index}", theirs)
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(status)
        theirs.close()
        lines.append(ours.makefile("rw"))
        ours.close()  # its file stays open
    answers = [line.readline() for line in lines]
    while "null\n" in answers:
        for line in lines:
            line.write("go\n")
            line.flush()
        answers = [line.readline() for line in lines]
    statuses = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in lines]
    assert statuses == [0] * number, statuses
    for line in lines:
        line.close()
    sys.stdout.write(json.dumps([json.loads(answer) for answer in answers]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
