"""What the final checkpoint of a job holds, and what a job that continues it does with it.

    python -m benchmarks.reproducibility.checkpoint_size [--set KEY=VALUE ...]

A small teacher of grey images of 32 x 32 pixels is distilled into half of its channels, with the defaults, but for few
updates a round, so that the banks of images are full soon. The command prints the bytes of each part of the final
checkpoint. Then the job is continued by one round, and the command prints the seconds until its first phase begins, and
the digest of the student.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open

from benchmarks.reproducibility.student_bytes import distil
from benchmarks.reproducibility.student_bytes_teachers import make_teachers
from dfkd_core.loop.checkpoint import HEADER, TENSOR, written
from dfkd_core.pipeline import STUDENT_WEIGHTS
from dfkd_core.progress import Update
from dfkd_core.spec import overrides
from dfkd_core.spec.config import Budget, DistillSpec

SETTINGS = ("training.updates_per_round=8", "budget.steps=200", "method_options.warmup_rounds=2")
LEAST_BYTES = 1000  # of a part that is worth a line


def main() -> int:
    """Run the job and its continuation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted path into the spec")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    document: dict[str, Any] = {"student": {"architecture": "teacher"}, "teacher": {"input": {"range": [0, 1]}}}
    overrides.apply(document, [*(f"distillation.{setting}" for setting in SETTINGS), *options.set])
    spec = DistillSpec.model_validate(document)
    with tempfile.TemporaryDirectory() as directory:
        teacher = make_teachers(Path(directory) / "teachers", threads=1)["lenet"]
        final = _run(teacher, spec, Path(directory) / "job", threads=options.threads)
        _print_parts(final)
        longer, budget = spec.model_dump(mode="json"), spec.distillation.budget
        longer["distillation"]["budget"]["steps"] += spec.distillation.training.updates_per_round
        continued = DistillSpec.model_validate(longer)
        _run(teacher, continued, Path(directory) / "more", final, budget, threads=options.threads)
    return 0


def _run(
    teacher: Path,
    spec: DistillSpec,
    workspace: Path,
    resume_from: Path | None = None,
    continued_budget: Budget | None = None,
    *,
    threads: int,
) -> Path:
    """Run one job, print what it took, and return its last checkpoint."""
    started, begun = time.monotonic(), 0.0

    def on_step(update: Update) -> bool:
        nonlocal begun
        if not begun and update.phase is not None:
            begun = time.monotonic() - started
        return False

    distil(
        teacher,
        spec,
        workspace,
        on_step=on_step,
        resume_from=resume_from,
        continued_budget=continued_budget,
        threads=threads,
        checkpoint_seconds=1e9,
    )
    digest = hashlib.sha256((workspace / STUDENT_WEIGHTS).read_bytes()).hexdigest()
    seconds = time.monotonic() - started
    print(f"{workspace.name}: first phase after {begun:.1f} s of {seconds:.1f} s, student {digest[:12]}")
    return written(workspace / "checkpoints")[-1]


def _print_parts(path: Path) -> None:
    """Print the bytes of a checkpoint and of each part of it."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
        sizes = {name: file.get_tensor(name).nbytes for name in file.keys()}  # noqa: SIM118 - not a mapping
    parts = Counter({key: sum(sizes[name] for name in _tensors(value)) for key, value in header["state"].items()})
    print(f"{path.stat().st_size / 1e6:8.2f} MB in all")
    for key, count in parts.most_common():
        if count >= LEAST_BYTES:
            print(f"{count / 1e6:8.2f} MB {key}")


def _tensors(value: Any) -> Iterator[str]:  # Any: JSON
    """Yield the names of the tensors in a part of a checkpoint."""
    if isinstance(value, list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict) and TENSOR in value:
        yield value[TENSOR]
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


if __name__ == "__main__":
    sys.exit(main())
