"""Shows that a change of the code leaves every student as it was, byte for byte.

    python -m benchmarks.reproducibility.student_bytes --tree PATH --output RESULT.json  # all cases by the code in PATH
    python -m benchmarks.reproducibility.student_bytes --compare BEFORE.json AFTER.json  # status 1 where digests differ

The teachers are made once, small and briefly trained, and are shared by all trees (`--teachers`). Every case is a
distillation of a few updates by the interpreter of the tree (`PATH/.venv/bin/python`), through the command line, or,
where a run is killed and resumed or gets more budget, through `dfkd_core.pipeline.compress`, which the worker calls.
"""

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfkd_core.output.provenance import cpu_name

THREADS = 1
STEPS = 18

TINY: dict[str, Any] = {
    "distillation.budget.steps": STEPS,
    "distillation.training.batch_size": 16,
    "distillation.training.updates_per_round": 3,
    "distillation.training.fresh_batches": 2,
    "distillation.training.replays_per_round": 16,
    "distillation.training.replay_share": 0.3,
    "distillation.steadiness.probe_size": 48,
    "distillation.steadiness.audit_size": 48,
    "distillation.steadiness.evaluations": 3,
    "distillation.procedural.images_per_round": 32,
    "distillation.procedural.capacity": 64,
    "distillation.procedural.refinement.images_per_round": 8,
    "distillation.procedural.refinement.capacity": 32,
    "distillation.procedural.refinement.steps": 3,
    "distillation.method_options.batch_size": 16,
    "distillation.method_options.warmup_rounds": 1,
}
"""Settings of every case: small enough for a few seconds, large enough for several rounds of every kind."""


@dataclass(frozen=True, slots=True)
class Case:
    """One distillation. `settings` are laid over TINY; names without a room are those of the distillation."""

    name: str
    teacher: str
    student: str
    method: str
    memory: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    how: str = "whole"  # or killed, stopped: after the second checkpoint, and resumed; or continued: with more budget

    def options(self) -> dict[str, Any]:
        """Dotted path into the spec → value."""
        chosen: dict[str, Any] = {"student.architecture": self.student, "distillation.method": self.method}
        if self.student.startswith(("resnet", "wrn")):
            chosen["student.width"] = 0.25
        own = {
            key if key.startswith("student.") else f"distillation.{key}": value for key, value in self.settings.items()
        }
        return TINY | chosen | {"distillation.memory": self.memory} | own

    def document(self) -> dict[str, Any]:
        """Return the same as the tree that POST /jobs takes."""
        tree: dict[str, Any] = {}
        for path, value in self.options().items():
            *parents, last = path.split(".")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        return tree


THIN = {"student.width": 0.5, "student.init": "teacher"}
RANDOM = {"student.width": 0.5, "student.init": "random"}
OPTIMISED = {"method_options.steps": 6}

CASES = (
    Case("pre_dfkd-vae-grey_bn", "grey_bn", "resnet8", "pre_dfkd", "vae", {"memory_options.agreement_gate": 0.0}),
    Case("dafl-reservoir-colour_folded", "colour_folded", "wrn_16_1", "dafl", "reservoir"),
    Case("mad-ema-colour_bn", "colour_bn", "teacher", "mad", "ema", {**THIN, "method_options.conditioning": "sum"}),
    Case("cgdd-none-grey_bn", "grey_bn", "teacher", "cgdd", "none", RANDOM),
    Case("rdskd-ring-lenet", "lenet", "lenet5_half", "rdskd", "ring", {"training.loss": "l1"}),
    Case("dfad-ring-grey_folded", "grey_folded", "resnet8", "dfad", "ring", {"training.anchor_weight": 0.3}),
    Case("dfq-reservoir-colour_bn", "colour_bn", "resnet8", "dfq", "reservoir", {"method_options.restart_rounds": 2}),
    Case("ddad-vae-colour_bn", "colour_bn", "teacher", "ddad", "vae", {**THIN, "training.optimizer": "sgd"}),
    Case(
        "deepinversion-priority-colour_bn", "colour_bn", "teacher", "deepinversion", "priority", {**THIN, **OPTIMISED}
    ),
    Case(
        "deepinversion-none-grey_folded",
        "grey_folded",
        "teacher",
        "deepinversion",
        "none",
        {**THIN, **OPTIMISED, "method_options.adv_weight": 0.5, "method_options.smoothness_weight": 0.1},
    ),
    Case("cmi-reservoir-colour_bn", "colour_bn", "teacher", "cmi", "reservoir", {**RANDOM, **OPTIMISED}),
    Case("cmi-priority-lenet", "lenet", "lenet5_half", "cmi", "priority", {**OPTIMISED, "method_options.keep": "best"}),
    Case("fast-reservoir-grey_bn", "grey_bn", "teacher", "fast", "reservoir", {**THIN, **OPTIMISED}),
    Case(
        "nayer-ring-colour_folded", "colour_folded", "resnet8", "nayer", "ring", {**OPTIMISED, "method_options.life": 2}
    ),
    Case(
        "csd-priority-grey_bn",
        "grey_bn",
        "resnet8",
        "csd",
        "priority",
        {**OPTIMISED, "method_options.probe_steps": 5, "method_options.probe_capacity": 64},
    ),
    Case("ssd_kd-priority-colour_bn", "colour_bn", "resnet8", "ssd_kd", "priority", {**OPTIMISED}),
    Case("sttss-reservoir-grey_bn", "grey_bn", "teacher", "sttss", "reservoir", {**THIN, **OPTIMISED}),
    Case(
        "dafl-falls-back-to-deepinversion",
        "colour_bn",
        "teacher",
        "dafl",
        "reservoir",
        {
            **THIN,
            "fallback": "deepinversion",
            "steadiness.min_class_entropy": 1.0,
            "steadiness.max_rollbacks": 3,
            "budget.steps": 24,
            "training.updates_per_round": 2,
        },
    ),
    Case("dafl-bf16-colour_bn", "colour_bn", "resnet8", "dafl", "reservoir", {"compute.precision": "bf16"}),
    Case(
        "pre_dfkd-vae-grey_bn-killed",
        "grey_bn",
        "resnet8",
        "pre_dfkd",
        "vae",
        {"memory_options.agreement_gate": 0.0},
        how="killed",
    ),
    Case(
        "cmi-reservoir-colour_bn-killed", "colour_bn", "teacher", "cmi", "reservoir", {**RANDOM, **OPTIMISED}, "killed"
    ),
    Case("fast-reservoir-grey_bn-stopped", "grey_bn", "teacher", "fast", "reservoir", {**THIN, **OPTIMISED}, "stopped"),
    Case(
        "csd-ring-grey_bn-killed",
        "grey_bn",
        "resnet8",
        "csd",
        "ring",
        {**OPTIMISED, "method_options.probe_steps": 5},
        "killed",
    ),
    Case("mad-ema-colour_bn-continued", "colour_bn", "teacher", "mad", "ema", {**THIN}, "continued"),
    Case(
        "nayer-reservoir-colour_bn-continued", "colour_bn", "resnet8", "nayer", "reservoir", {**OPTIMISED}, "continued"
    ),
)


def main() -> int:
    """Run the cases with one tree, or compare two results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, help="a checkout with its own .venv")
    parser.add_argument("--output", type=Path, help="where the JSON goes; standard output without it")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--teachers", type=Path, default=Path(tempfile.gettempdir()) / "dfkd-student-bytes")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--attempt", help=argparse.SUPPRESS)  # what this file does inside a tree: one attempt at a case
    options = parser.parse_args()
    if options.attempt:
        return attempt(json.loads(options.attempt))
    if options.compare:
        return compare(*options.compare)
    found = json.dumps(measure(options), indent=1) + "\n"
    if options.output:
        options.output.write_text(found, encoding="utf-8")
    else:
        print(found, end="")
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Digests of every case, and what they were made with."""
    tree, chosen = options.tree.absolute(), [case for case in CASES if options.only in case.name]
    from benchmarks.reproducibility.student_bytes_teachers import (
        make_teachers,  # absent from older trees, where attempts run
    )

    teachers = make_teachers(options.teachers, threads=THREADS)
    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(lambda case: run_case(tree, case, teachers[case.teacher]), chosen))
    cases = dict(zip((case.name for case in chosen), found, strict=True))
    digests = {name: _digest(path) for name, path in teachers.items()}
    return {"machine": machine(tree), "teachers": digests, "cases": cases}


def machine(tree: Path) -> dict[str, Any]:
    """Processor and versions that the bytes depend on."""
    program = "import json, torch; print(json.dumps([torch.__version__, torch.backends.cpu.get_cpu_capability()]))"
    version, capability = json.loads(subprocess.check_output([_python(tree), "-c", program], env=_environment(tree)))
    return {"cpu": cpu_name(), "torch": version, "cpu_capability": capability, "threads": THREADS}


def run_case(tree: Path, case: Case, teacher: Path) -> dict[str, Any]:
    """Distil once with the code in `tree`; the digests of the two files of the student."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        if case.how == "whole":
            _through_the_command_line(tree, case, teacher, directory)
        else:
            _with_an_interruption(tree, case, teacher, directory)
        digests = {name: _digest(directory / name) for name in ("student.onnx", "student.safetensors")}
    seconds = round(time.monotonic() - started, 1)
    print(f"{case.name}: {digests['student.safetensors'][:12]}  {seconds} s", file=sys.stderr, flush=True)
    return {**digests, "seconds": seconds}


def _through_the_command_line(tree: Path, case: Case, teacher: Path, directory: Path) -> None:
    settings = [f"{path}={json.dumps(value)}" for path, value in case.options().items()]
    command = [_python(tree), "-m", "dfkd_core", str(teacher), "-o", str(directory / "student.onnx")]
    command += ["--threads", str(THREADS), *(part for setting in settings for part in ("--set", setting))]
    _call(command, tree)


def _with_an_interruption(tree: Path, case: Case, teacher: Path, directory: Path) -> None:
    task = {"teacher": str(teacher), "spec": case.document(), "workspace": str(directory)}
    if case.how == "continued":
        before = case.document()
        before["distillation"]["budget"]["steps"] = STEPS // 2
        _attempt(tree, {**task, "spec": before})
        _attempt(tree, {**task, "resume": True, "continued_steps": STEPS // 2})
        return
    status = -signal.SIGKILL if case.how == "killed" else 3
    _attempt(tree, {**task, "interruption": case.how}, status=status)
    _attempt(tree, {**task, "resume": True})


def _attempt(tree: Path, task: Mapping[str, Any], *, status: int = 0) -> None:
    _call([_python(tree), str(Path(__file__).absolute()), "--attempt", json.dumps(task)], tree, status=status)


def distil(
    teacher: Path,
    spec: Any,  # DistillSpec, of this tree or of an older one
    workspace: Path,
    *,
    on_step: Callable[[Any], bool],
    resume_from: Path | None = None,
    continued_budget: Any = None,  # Budget
    threads: int = THREADS,
    checkpoint_seconds: float = 0.0,
) -> None:
    """Distil on the CPU as a worker does, with the code of the tree in which this runs."""
    from dfkd_core.pipeline import compress

    compress(
        teacher,
        spec,
        workspace=workspace,
        threads=threads,
        device="cpu",
        on_step=on_step,
        resume_from=resume_from,
        continued_budget=continued_budget,
        checkpoint_seconds=checkpoint_seconds,
    )


def attempt(task: Mapping[str, Any]) -> int:
    """Inside a tree: distil, perhaps from the newest checkpoint, perhaps until the attempt's second checkpoint."""
    from dfkd_core.errors import Stopped

    config = importlib.import_module("dfkd_core.spec.config" if _is_room("dfkd_core.spec") else "dfkd_core.config")
    workspace, interruption, written = Path(task["workspace"]), task.get("interruption"), 0

    def on_step(update: Any) -> bool:
        nonlocal written
        written += update.kind == "checkpoint"
        if interruption == "killed" and written == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return interruption == "stopped" and written == 2

    budget = config.Budget(steps=task["continued_steps"]) if "continued_steps" in task else None
    resume_from = None
    if task.get("resume"):
        newest = max((workspace / "checkpoints").glob("checkpoint-*.safetensors"))
        resume_from = Path(shutil.copy(newest, workspace / "resumed.safetensors"))  # the writer keeps two of its own
    try:
        distil(
            Path(task["teacher"]),
            config.DistillSpec.model_validate(task["spec"]),
            workspace,
            on_step=on_step,
            resume_from=resume_from,
            continued_budget=budget,
        )
    except Stopped:
        return 3
    return 0


def _is_room(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _python(tree: Path) -> str:
    return str(tree / ".venv/bin/python")


def _environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(THREADS), "PYTHONDONTWRITEBYTECODE": "1"}


def _call(command: list[str], tree: Path, *, status: int = 0) -> None:
    ended = subprocess.run(command, cwd=tree, env=_environment(tree), capture_output=True, text=True, check=False)
    if ended.returncode != status:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}, not {status}:\n{ended.stderr[-3000:]}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compare(before: Path, after: Path) -> int:
    """Print a line for every case and say how many are equal."""
    one, other = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    for name in ("machine", "teachers"):
        if one[name] != other[name]:
            print(f"different {name}: {one[name]} and {other[name]}")
    names = [name for name in one["cases"] if name in other["cases"]]
    equal = 0
    print("| case | student.onnx before | after | student.safetensors before | after | |")
    print("|---|---|---|---|---|---|")
    for name in names:
        files = [
            (one["cases"][name][file], other["cases"][name][file]) for file in ("student.onnx", "student.safetensors")
        ]
        same = all(was == now for was, now in files)
        equal += same
        digests = " | ".join(f"{was[:12]} | {now[:12]}" for was, now in files)
        print(f"| {name} | {digests} | {'equal' if same else 'DIFFERENT'} |")
    print(f"\n{equal} of {len(names)} cases equal")
    return 0 if equal == len(names) == len(one["cases"]) else 1


if __name__ == "__main__":
    sys.exit(main())
