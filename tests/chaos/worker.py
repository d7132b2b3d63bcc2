"""`python -m tests.chaos.worker`: the real worker, whose runners execute `science.py`."""

import sys
from functools import partial
from pathlib import Path

import worker.app
from worker.__main__ import main
from worker.slots import WorkerPool

COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("science.py")))

if __name__ == "__main__":
    worker.app.WorkerPool = partial(WorkerPool, command=COMMAND)  # type: ignore[misc,assignment]
    main()
