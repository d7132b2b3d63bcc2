"""`python -m tests.door`: all bad inputs, the OpenAPI document, the fuzzers, a flood, times; one table at the end.

Anything after `--` goes to pytest, for example `-- -k B-017`; then there is no flood, and nothing is timed.
"""

import argparse
import sys

import pytest

from tests.door import flood, page, timing
from tests.door.scorecard import Scorecard


def main() -> int:
    """The exit status is not 0 where an answer was not the promised one."""
    parser = argparse.ArgumentParser(prog="python -m tests.door", description=__doc__)
    parser.add_argument("--processes", type=int, default=1, help="servers at a time")
    parser.add_argument("--flood-seconds", type=float, default=30.0, help="0: no flood")
    parser.add_argument("--timing-samples", type=int, default=timing.SAMPLES, help="0: nothing is timed")
    parser.add_argument("--update", action="store_true", help=f"write {page.RESULT.name} and docs/{page.PAGE.name}")
    parser.add_argument("rest", nargs="*", help="for pytest")
    given = parser.parse_args()
    card = Scorecard()
    where = [] if any(word.startswith("tests/") for word in given.rest) else ["tests/door"]
    options = ["-q", "-p", "no:cacheprovider", "-m", "not gpu", *where, *given.rest]
    if given.processes > 1:
        options += ["-n", str(given.processes), "--dist", "worksteal"]
    status = int(pytest.main(options, plugins=[card]))
    result = card.result()
    if given.flood_seconds and not given.rest:
        result["flood"] = flood.measured(seconds=given.flood_seconds, per_second=flood.PER_SECOND)
        sys.stdout.write("\n".join(page.flood_lines(result["flood"])) + "\n")
        status = status or int(bool(result["flood"]["broken"]))
    if given.timing_samples and not given.rest:
        result["timing"] = timing.measured(samples=given.timing_samples)
        sys.stdout.write("\n".join(page.timing_lines(result["timing"])) + "\n")
        status = status or int(bool(result["timing"]["broken"]))
    if given.update:
        page.write(result)
    return status


if __name__ == "__main__":
    sys.exit(main())
