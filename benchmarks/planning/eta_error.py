"""How well the end of a running job is predicted: three jobs of different kinds, with every prediction that they make.

    python -m benchmarks.planning.eta_error                    all three, by wall-clock time: the machine has to be idle
    python -m benchmarks.planning.eta_error --clock cpu lenet5 one of them, by the processor seconds of its process

Each job runs in a process of its own, measured after this machine as a worker measures itself. From a tenth of its
running time on, the predicted end may be off by at most 20 % of the whole. With `--clock cpu` the job's own clock, by
which its phases are measured, counts processor seconds divided by the threads, so other work on the machine hardly
matters. `benchmarks/results/eta_error.json` is written as each job ends, with at most 200 predictions of each.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.planning.plan_accuracy import calibrated, kept_record, seconds_by, write_record, write_teacher
from dfkd_core.sandbox.process_tuning import ensure_tuned

BAR = 0.2
JUDGED_FROM = 0.1  # of the running time
MOST_KEPT = 200


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of job."""

    teacher: str  # of `plan_accuracy.TEACHERS`
    distillation: dict[str, Any] = field(default_factory=dict)
    folded: bool = False  # exported without its BatchNorm statistics


JOBS = {
    "lenet5": Job("lenet5", {"method": "pre_dfkd"}),  # a generator that learns beside the student
    "resnet20": Job("resnet20", {"method": "deepinversion"}),  # images that are optimised, by BatchNorm statistics
    "vgg11-folded": Job("vgg11", folded=True),  # a deep net that has none: procedural images, refined
}


def main() -> None:
    """Run the jobs and print the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"some of {', '.join(JOBS)}; all by default")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--steps", type=int, help="student updates, instead of those of the effort")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--speed", type=Path, help="a kept calibration, such as one of the idle machine")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results" / "eta_error.json")
    parser.add_argument("--child", metavar="SPEED", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        ensure_tuned(options.threads)
        print(json.dumps(predictions(JOBS[options.jobs[0]], options)))
        return
    record = kept_record(options.output)
    for name in options.jobs or JOBS:
        found = in_child(name, options)
        record["jobs"] = {**record.get("jobs", {}), name: found}
        write_record(options.output, record)
        print(
            f"{name:14} {found['seconds']:7.1f} s by the {options.clock} clock, "
            f"predicted end off by at most {found['worst']:.0%} ({found['worst_at']:.0%} in), bar {BAR:.0%}: "
            f"{'kept' if found['worst'] <= BAR else 'MISSED'}",
            flush=True,
        )


def in_child(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one job in a fresh process."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as speed:
        speed.write(options.speed.read_text() if options.speed else calibrated(options.threads))
        speed.flush()
        command = [
            sys.executable,
            "-m",
            "benchmarks.planning.eta_error",
            name,
            "--child",
            speed.name,
            "--clock",
            options.clock,
        ]
        command += ["--effort", options.effort, "--threads", str(options.threads)]
        command += [] if options.steps is None else ["--steps", str(options.steps)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def predictions(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Run one job, and return what it predicted with the errors."""
    from benchmarks.hardware import describe_hardware
    from dfkd_core.pipeline import compress
    from dfkd_core.planning.worker_speed import WorkerSpeed
    from dfkd_core.progress import Update
    from dfkd_core.spec.config import DistillSpec

    clock = seconds_by(options.clock, options.threads)
    budget = {"effort": options.effort} if options.steps is None else {"steps": options.steps}
    with tempfile.TemporaryDirectory() as directory:
        path, teacher = write_teacher(job.teacher, Path(directory), folded=job.folded)
        student = {"architecture": "lenet5_half"} if job.teacher == "lenet5" else {"architecture": "teacher"}
        document = {"teacher": teacher, "student": student, "distillation": {"budget": budget, **job.distillation}}
        begun, told = clock(), list[tuple[float, float | None, float, str]]()

        def on_step(update: Update) -> bool:
            told.append((clock() - begun, update.eta_seconds, update.fraction, update.phase or update.stage))
            return False

        speed = WorkerSpeed.model_validate_json(Path(options.child).read_text())
        compress(
            path,
            DistillSpec.model_validate(document),
            workspace=Path(directory) / "work",
            threads=options.threads,
            device="cpu",
            on_step=on_step,
            speed=speed,
            bf16_tries=speed.bf16_tries,
            clock=clock,
        )
        seconds = clock() - begun
    errors = [
        (abs(elapsed + left - seconds) / seconds, elapsed / seconds)
        for elapsed, left, _, _ in told
        if left is not None and elapsed >= JUDGED_FROM * seconds
    ]
    silent = [elapsed for elapsed, left, _, _ in told if left is None and elapsed >= JUDGED_FROM * seconds]
    worst, worst_at = max(errors)
    return {
        "clock": options.clock,
        "hardware": {**describe_hardware(), "threads": options.threads},
        "seconds": round(seconds, 1),
        "worst": round(worst, 3),
        "worst_at": round(worst_at, 3),
        "without_prediction": len(silent),
        "predictions": [  # seconds elapsed, predicted end, fraction, phase
            [round(elapsed, 2), None if left is None else round(elapsed + left, 2), round(done, 4), phase]
            for elapsed, left, done, phase in told[:: max(1, len(told) // MOST_KEPT)]
        ],
    }


if __name__ == "__main__":
    main()
