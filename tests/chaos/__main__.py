"""`python -m tests.chaos --count 10`: every fault of the table, and one table at the end.

50 is the table's full count, 1 the quick one. Anything after `--` goes to pytest.
"""

import argparse
import os
import sys
from pathlib import Path

import pytest

from tests.chaos import page
from tests.chaos.fault import NEEDS
from tests.chaos.scorecard import Scorecard
from tests.chaos.table import TABLE


def main() -> int:
    """The exit status is not 0 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--count", type=int, default=1, help="runs of a row that the plan runs 50 times")
    parser.add_argument("--cheap", type=int, default=0, help="the same for rows that take no time")
    parser.add_argument("--seed", type=int, default=20, help="all random instants follow from it")
    parser.add_argument("--processes", type=int, default=1, help="files of tests at a time")
    parser.add_argument("--json", type=Path, default=page.RESULT, help="where the result goes")
    parser.add_argument("--update", action="store_true", help="keep the rows of that file which are not run now")
    parser.add_argument("rest", nargs="*", help="for pytest, for example -k f01")
    given = parser.parse_args()
    os.environ |= {"CHAOS_COUNT": str(given.count), "CHAOS_CHEAP": str(given.cheap), "CHAOS_SEED": str(given.seed)}
    missing = [name for name, there in NEEDS.items() if not there()]
    if missing:
        sys.stdout.write(f"missing here, and with it some rows: {', '.join(missing)}\n")
    chosen = given.rest or ["tests/chaos", *(path for row in TABLE.values() for path in row.elsewhere)]
    options = ["-q", "-p", "no:cacheprovider", "-m", "not gpu and not slow"]
    if given.processes > 1:
        options += ["-n", str(given.processes), "--dist", "loadfile"]
    status = int(pytest.main([*options, *chosen], plugins=[Scorecard(given.json, update=given.update)]))
    if given.json == page.RESULT:
        page.write()
    return status


if __name__ == "__main__":
    sys.exit(main())
