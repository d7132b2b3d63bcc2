"""`python -m benchmarks.zoo.reading FOLDER`: reads a folder of exports and compares each with the network it came from.

An export is `read` when our logits equal ONNX Runtime's and the original network's, and our gradient at the images is
the original's. Otherwise the line has the code with which the teacher is refused, and the reason. NAME.WAY.txt
means that the exporter itself failed. Exit status 1 where an export is taken and computed wrongly.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.teacher_zoo import GRADIENT, PARITY, Cell
from dfkd_core.errors import TeacherError
from dfkd_core.inspection.inspection import inspect_file
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import Teacher, load_teacher
from dfkd_core.teachers.verification import verify_teacher


def read(stem: Path) -> Cell:
    """Read one export; `stem` is its path without the last suffix."""
    net, _, way = stem.name.partition(".")
    refused = stem.with_name(f"{stem.name}.txt")
    if refused.exists():
        return Cell(net, way, "cannot-export", refused.read_text().strip().splitlines()[-1][:160])
    path = stem.with_name(f"{stem.name}.onnx")
    with np.load(stem.with_name(f"{stem.name}.npz")) as stored:
        answers = dict(stored)
    shape = next(array.shape[1:] for name, array in answers.items() if name.startswith("images"))
    spec = TeacherSpec(input=InputSpec(shape=list(shape), mean=[0.5] * shape[0], std=[0.25] * shape[0]))
    try:
        found = inspect_file(path, spec)
        teacher = load_teacher(path, spec)
        depth = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    except TeacherError as error:
        return Cell(net, way, error.code, error.detail)
    parity, gradient = _compare(teacher, answers)
    whole = parity <= PARITY and gradient <= GRADIENT and depth.gradient_error <= GRADIENT
    return Cell(
        net,
        way,
        "read" if whole else "wrong",
        parity=max(parity, depth.max_abs_diff or 0.0),
        gradient=gradient,
        finite_difference=depth.gradient_error,
        batchnorm=found.batchnorm.status,
        normalisations=found.normalisations,
    )


def _compare(teacher: Teacher, answers: dict[str, np.ndarray]) -> tuple[float, float]:
    """Return the largest errors of logits and gradients over all batch sizes, as shares of the original's."""
    parity = slope = 0.0
    for count in sorted(name.removeprefix("images") for name in answers if name.startswith("images")):
        images = torch.tensor(answers[f"images{count}"], requires_grad=True)
        logits = teacher(images)
        wanted = torch.tensor(answers[f"logits{count}"])
        (gradient,) = torch.autograd.grad((logits * torch.tensor(answers[f"weights{count}"])).sum(), images)
        expected = torch.tensor(answers[f"gradient{count}"])
        parity = max(parity, float((logits - wanted).abs().max() / wanted.abs().max()))
        slope = max(slope, float((gradient - expected).norm() / expected.norm()))
    return parity, slope


def stems(folder: Path) -> list[Path]:
    """Return the exports of a folder, without their last suffix."""
    return sorted({path.with_suffix("") for path in folder.iterdir() if path.suffix in (".onnx", ".txt")})


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the folder and print a line for each export."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.reading", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[""], help="only exports whose names begin like one of these")
    parser.add_argument("--record", type=Path, help="write the readings to this file as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    readings = []
    for stem in stems(options.folder):
        if stem.name.startswith(tuple(options.only)):
            readings.append(found := read(stem))
            numbers = "" if found.parity is None else f"parity {found.parity:.0e} gradient {found.gradient:.0e}"
            print(f"{found.net:<20} {found.way:<12} {found.verdict:<24} {found.because or numbers}", flush=True)
    taken = sum(reading.verdict == "read" for reading in readings)
    exported = sum(reading.verdict != "cannot-export" for reading in readings)
    print(f"{taken} of {exported} exports read; {len(readings) - exported} that the exporters refused")
    if options.record is not None:
        options.record.write_text(json.dumps([asdict(reading) for reading in readings], indent=1) + "\n")
    return int(any(reading.verdict == "wrong" for reading in readings))


if __name__ == "__main__":
    sys.exit(main())
