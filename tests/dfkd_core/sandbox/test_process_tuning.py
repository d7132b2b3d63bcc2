"""The settings that a training process must find when it starts."""

import os
import subprocess
import sys

from dfkd_core.sandbox.process_tuning import TUNED, tuned_environment

TUNE_ONCE = """
import os, sys
from dfkd_core.sandbox.process_tuning import ensure_tuned
ensure_tuned(3)
names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MALLOC_TRIM_THRESHOLD_", "PYTHONHASHSEED", "STARTS")
sys.stdout.write(" ".join(os.environ.get(name, "-") for name in names) + " " + " ".join(sys.argv[1:]))
"""


def test_what_the_operator_set_stays_but_threads_and_hashes_are_fixed() -> None:
    base = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "64", "PYTHONHASHSEED": "random", "OTHER": "kept"}
    tuned = tuned_environment(base, threads=2)
    assert (tuned["OMP_WAIT_POLICY"], tuned["OTHER"]) == ("ACTIVE", "kept")
    assert (tuned["OMP_NUM_THREADS"], tuned["MKL_NUM_THREADS"], tuned["PYTHONHASHSEED"]) == ("2", "2", "0")
    assert tuned["GOMP_SPINCOUNT"] == "1000"
    assert base["OMP_NUM_THREADS"] == "64"


def test_a_process_executes_itself_again_with_its_own_arguments() -> None:
    environment = {name: value for name, value in os.environ.items() if name != TUNED}
    answer = subprocess.run(
        [sys.executable, "-c", TUNE_ONCE, "--flag", "a b"], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "3 PASSIVE 268435456 0 - --flag a b"


def test_a_tuned_process_goes_on_as_it_is() -> None:
    """A second execution would start over: what was printed before would appear twice."""
    environment = tuned_environment(os.environ, threads=3)
    program = "print('once', flush=True)\n" + TUNE_ONCE
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.count("once") == 1
