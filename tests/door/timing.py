"""`python -m tests.door.timing`: does the time of an answer reveal what its text hides?

A real service that has keys is asked, in a seeded random order, for jobs of another tenant, absent ones and deleted
ones, and with keys that are wrong in five ways. The exit status is the verdict.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.door.door import Door
from tests.door.guarded import GuardedDoor, guarded_door
from tests.door.routes import NOBODY
from tests.service.guarded import told

SAMPLES = 1000
WARM_UP = 30
SEED = 20
LIMIT_MS = 5.0
NORMAL_95 = 1.96
OPERATIONS = (("GET", ""), ("POST", "/cancel"), ("GET", "/artifacts"), ("GET", "/artifacts/report.json"))
KEYS = ("wrong", "truncated", "unknown", "expired", "revoked")

Ask = Callable[[], httpx.Response]


@dataclass(slots=True)
class Heard:
    """The answers to one question."""

    seconds: list[float] = field(default_factory=list)
    words: set[str] = field(default_factory=set)  # what was told, but for the request's id


def questions(door: GuardedDoor) -> dict[tuple[str, str], Ask]:
    """What is asked, by its subject and by what must not be told apart in it."""
    caller = door.of("umbrella")
    jobs = {"foreign": door.finished_job(), "absent": NOBODY, "deleted": deleted_job(caller)}
    asked = {
        (f"{method} /jobs/ID{rest}", kind): asking(caller.service.http, method, f"/jobs/{job_id}{rest}")
        for method, rest in OPERATIONS
        for kind, job_id in jobs.items()
    }
    for kind in KEYS:
        headers = {"Authorization": f"Bearer {door.wrong_keys[kind]}"}
        asked["GET /jobs", kind] = asking(door.nobody, "GET", "/jobs", headers)
    return asked


def asking(http: httpx.Client, method: str, path: str, headers: Mapping[str, str] | None = None) -> Ask:
    return lambda: http.request(method, path, headers=headers)


def deleted_job(door: Door) -> str:
    """A job of the caller's own that is no more."""
    job_id = door.good()
    assert door.service.http.delete(f"/jobs/{job_id}").status_code == 200
    return job_id


def sampled(asked: Mapping[tuple[str, str], Ask], *, samples: int, seed: int) -> dict[tuple[str, str], Heard]:
    """So many answers to each, in random order, after some that do not count."""
    heard = {question: Heard() for question in asked}
    for question in [*asked] * WARM_UP:
        asked[question]()
    order = [*asked] * samples
    random.Random(seed).shuffle(order)
    for question in order:
        began = time.perf_counter()
        answer = asked[question]()
        heard[question].seconds.append(time.perf_counter() - began)
        heard[question].words.add(json.dumps(told(answer), sort_keys=True))
    return heard


def difference(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Of two means, in ms, with its 95 % interval (normal, variances not pooled)."""
    one, other = np.array(first) * 1e3, np.array(second) * 1e3
    found = float(one.mean() - other.mean())
    half = NORMAL_95 * float(np.sqrt(one.var(ddof=1) / one.size + other.var(ddof=1) / other.size))
    return {"ms": round(found, 3), "interval_ms": [round(found - half, 3), round(found + half, 3)]}


def compared(heard: Mapping[tuple[str, str], Heard]) -> list[dict[str, Any]]:
    """By subject: the means of its kinds, the difference of each pair, and whether all said the same."""
    found = []
    for subject in dict.fromkeys(subject for subject, _ in heard):
        kinds = {kind: answers for (other, kind), answers in heard.items() if other == subject}
        means = {kind: round(float(np.mean(answers.seconds)) * 1e3, 3) for kind, answers in kinds.items()}
        medians = {kind: round(float(np.median(answers.seconds)) * 1e3, 3) for kind, answers in kinds.items()}
        pairs = [
            {"of": [one, other], **difference(kinds[one].seconds, kinds[other].seconds)}
            for one, other in combinations(kinds, 2)
        ]
        alike = len(set().union(*(answers.words for answers in kinds.values()))) == 1
        found.append({"asked": subject, "mean_ms": means, "median_ms": medians, "differences": pairs, "alike": alike})
    return found


def verdict(subjects: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was promised and is not shown to be kept: a whole interval has to be below the limit, on both sides.

    One that reaches across it decides nothing; then the machine had other work, or the samples were too few.
    """
    broken = [f"{subject['asked']}: the answers differ" for subject in subjects if not subject["alike"]]
    for subject in subjects:
        for pair in subject["differences"]:
            low, high = pair["interval_ms"]
            if max(-low, high) >= LIMIT_MS:
                found = "differ by" if low >= LIMIT_MS or high <= -LIMIT_MS else "may differ, undecided at"
                broken.append(f"{subject['asked']}: {' and '.join(pair['of'])} {found} {pair['ms']} ms")
    return broken


def timed(door: GuardedDoor, *, samples: int, seed: int = SEED) -> dict[str, Any]:
    """The figures at one door, and what was broken."""
    subjects = compared(sampled(questions(door), samples=samples, seed=seed))
    return {"samples": samples, "seed": seed, "subjects": subjects, "broken": verdict(subjects)}


def measured(*, samples: int) -> dict[str, Any]:
    """The same on a service of its own."""
    from benchmarks.hardware import describe_hardware

    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="dfkd-timing-") as directory,
        guarded_door(Path(directory) / "data") as door,
    ):
        figures = timed(door, samples=samples)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": describe_hardware(),
        "load": round(os.getloadavg()[0], 1),
        "seconds": round(time.perf_counter() - began),
        **figures,
    }


def main() -> int:
    """Measure, and say it."""
    parser = argparse.ArgumentParser(prog="python -m tests.door.timing", description=__doc__)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--update", action="store_true", help="write it into the results and the page of `make door`")
    given = parser.parse_args()
    result = measured(samples=given.samples)
    sys.stdout.write(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if given.update:
        from tests.door import page

        page.keep({"timing": result})
    return 1 if result["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
