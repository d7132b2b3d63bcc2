"""`python -m benchmarks.teacher_zoo`: exports every net of the zoo in every way, reads it back and compares.

A cell is `read` when our logits equal those of ONNX Runtime and our gradient at the images is the original module's.
Otherwise it has the code with which the teacher is refused, or says that the exporter itself fails. The table goes into
docs/teachers.md, everything else into benchmarks/results/teacher_zoo.json.
"""

import argparse
import json
import logging
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.hardware import describe_hardware
from dfkd_core.errors import TeacherError
from dfkd_core.inspection.inspection import Inspection, inspect_file
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import Teacher, load_teacher
from dfkd_core.teachers.verification import verify_teacher
from tests.dfkd_core import zoo
from tests.dfkd_core.exports import WAYS, exported

PARITY = 1e-4  # largest difference to ONNX Runtime's logits, as a share of the largest logit
GRADIENT = 1e-3  # of the gradient at the images, as a share of the original module's
BATCHES = (1, 2, 7)
RESULTS = Path(__file__).parent / "results" / "teacher_zoo.json"
PAGE = Path(__file__).parents[1] / "docs" / "teachers.md"
BEGIN, END = "<!-- zoo: python -m benchmarks.teacher_zoo -->", "<!-- /zoo -->"


@dataclass(frozen=True)
class Cell:
    """One net, exported one way."""

    net: str
    way: str
    verdict: str  # read, wrong, the code of a refusal, or cannot-export
    because: str = ""
    parity: float | None = None
    gradient: float | None = None
    rounding: float | None = None  # if that gradient is the one in float64: the error of the one in float32 to it
    finite_difference: float | None = None
    batchnorm: str | None = None
    normalisations: list[str] = field(default_factory=list)
    seconds: float = 0.0


def judge(name: str, way: str, shelf: Path) -> Cell:
    """Export, read, compare."""
    began = time.monotonic()
    try:
        net, path = exported(name, way, shelf)
    except Exception as error:  # whatever the exporter raises: its errors have no class in common
        first = re.sub(r"\s+", " ", str(error))[:160]
        return Cell(name, way, "cannot-export", f"{type(error).__name__}: {first}")
    spec = TeacherSpec(input=InputSpec(shape=list(zoo.SHAPE), mean=[0.5] * 3, std=[0.25] * 3))
    try:
        found = inspect_file(path, spec)
        teacher = load_teacher(path, spec)
        depth = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    except TeacherError as error:
        return Cell(name, way, error.code, error.detail)
    assert depth.max_abs_diff is not None
    scale, gradient = compare(net, teacher, found)
    parity = depth.max_abs_diff / scale
    read = parity <= PARITY and gradient <= GRADIENT and depth.gradient_error <= GRADIENT
    return Cell(
        name,
        way,
        "read" if read else "wrong",
        parity=parity,
        gradient=gradient,
        finite_difference=depth.gradient_error,
        batchnorm=found.batchnorm.status,
        normalisations=found.normalisations,
        seconds=round(time.monotonic() - began, 2),
    )


def compare(net: nn.Module, teacher: Teacher, found: Inspection) -> tuple[float, float]:
    """Return the largest logit, and the largest relative error of our gradient against the original module's."""
    net.requires_grad_(False)
    softmax = "softmax-cut" in found.normalisations
    scale, worst = 0.0, 0.0
    for count in BATCHES:
        images = torch.randn(count, *zoo.SHAPE, generator=torch.Generator().manual_seed(count))
        _, wanted = _gradient(net, images, softmax=False)
        logits, slope = _gradient(teacher, images, softmax=softmax)
        scale = max(scale, float(logits.abs().max()))
        worst = max(worst, float((slope - wanted).norm() / wanted.norm()))
    return scale, worst


def _gradient(network: nn.Module, images: Tensor, *, softmax: bool) -> tuple[Tensor, Tensor]:
    """Return the logits, and the gradient of a fixed weighted sum of the outputs at the images."""
    images = images.clone().requires_grad_(True)
    logits = network(images)
    outputs = logits.softmax(1) if softmax else logits
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((outputs * weights).sum(), images)
    return logits.detach(), found


def judge_net(name: str, ways: Sequence[str]) -> list[Cell]:
    """Measure one row, in a process of its own."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.__stdout__.fileno())  # the exporters talk, in C++ too
    with tempfile.TemporaryDirectory() as shelf:
        return [judge(name, way, Path(shelf)) for way in ways]


def run(nets: Sequence[str], ways: Sequence[str], *, jobs: int, diary: Path | None) -> list[Cell]:
    """Measure all cells; those that are already in the diary file are not measured again."""
    cells = _read_diary(diary)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        missing = {name: [way for way in ways if (name, way) not in cells] for name in nets}
        running = {pool.submit(judge_net, name, left): name for name, left in missing.items() if left}
        for done in as_completed(running):
            row = done.result()
            cells |= {(cell.net, cell.way): cell for cell in row}
            print(summary(row), flush=True)
            if diary is not None:
                with diary.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(asdict(cell)) + "\n" for cell in row)
    return [cells[name, way] for name in nets for way in ways]


def _read_diary(diary: Path | None) -> dict[tuple[str, str], Cell]:
    if diary is None or not diary.exists():
        return {}
    cells = [Cell(**json.loads(line)) for line in diary.read_text(encoding="utf-8").splitlines()]
    return {(cell.net, cell.way): cell for cell in cells}


def summary(row: Sequence[Cell]) -> str:
    """Return one line about one net."""
    counts = {verdict: sum(cell.verdict == verdict for cell in row) for verdict in sorted({c.verdict for c in row})}
    worst = max((cell.parity or 0.0) for cell in row), max((cell.gradient or 0.0) for cell in row)
    counted = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"{row[0].net:<18} {counted:<40} parity {worst[0]:.1e}  gradient {worst[1]:.1e}"


def table(cells: Sequence[Cell], ways: Sequence[str]) -> str:
    """Return the matrix in Markdown: a cell holds the larger of its two errors, or why there is none."""
    rows = {cell.net: {} for cell in cells}  # type: dict[str, dict[str, Cell]]
    for cell in cells:
        rows[cell.net][cell.way] = cell
    lines = ["| net | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
    lines += [f"| {net} | " + " | ".join(_mark(row.get(way)) for way in ways) + " |" for net, row in rows.items()]
    return "\n".join(lines)


def _mark(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.verdict == "read":
        return f"{max(cell.parity or 0.0, cell.gradient or 0.0):.0e}"
    return {"cannot-export": "–", "wrong": "**wrong**"}.get(cell.verdict, "refused")


def versions() -> dict[str, str]:
    """Return what exported and what compared."""
    return {name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")}


def write_page(cells: Sequence[Cell], ways: Sequence[str]) -> None:
    """Put the matrix between its marks in docs/teachers.md."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = "\n\n".join([_introduction(cells), table(cells, ways), _refusals(cells)])
    PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}", encoding="utf-8")


def _introduction(cells: Sequence[Cell]) -> str:
    read = [cell for cell in cells if cell.verdict == "read"]
    worst = max(cell.parity or 0.0 for cell in read), max(cell.gradient or 0.0 for cell in read)
    named = ", ".join(f"{name} {number}" for name, number in versions().items())
    return (
        f"{len({cell.net for cell in cells})} nets, {len(cells)} exports, {len(read)} of them read, with {named}. "
        f"The largest difference to ONNX Runtime is {worst[0]:.0e} of the largest logit (allowed: {PARITY:.0e}), the "
        f"largest error of the gradient at the images {worst[1]:.0e} of the original module's (allowed: "
        f"{GRADIENT:.0e}). "
        "A cell holds the larger of the two; – : the exporter itself refuses the net; empty: not run in this record."
    )


def _refusals(cells: Sequence[Cell]) -> str:
    lines = []
    for net in dict.fromkeys(cell.net for cell in cells):
        refused = [cell for cell in cells if cell.net == net and cell.verdict not in ("read", "cannot-export")]
        reasons = dict.fromkeys(f"`{cell.verdict}`, {cell.because}" for cell in refused)
        lines += [f"- {net}: {reason}" for reason in reasons]
    return "\n".join(["Refused, with the reason given:", "", *lines]) if lines else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix; exit status 1 where a cell is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.teacher_zoo", description=__doc__)
    parser.add_argument("nets", nargs="*", default=list(zoo.ZOO), help="only these nets; nothing is written then")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), help="only these ways; nothing is written then")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--diary", type=Path, help="cells that are done; a run that was interrupted goes on from there")
    options = parser.parse_args(arguments)
    cells = run(options.nets, options.ways, jobs=options.jobs, diary=options.diary)
    for cell in cells:
        if cell.verdict not in ("read", "cannot-export"):
            print(f"{cell.net} / {cell.way}: {cell.verdict}: {cell.because or (cell.parity, cell.gradient)}")
    if options.nets == list(zoo.ZOO) and options.ways == list(WAYS):
        record: dict[str, Any] = {"hardware": describe_hardware(), "versions": versions()}
        record |= {"limits": {"parity": PARITY, "gradient": GRADIENT}, "cells": [asdict(cell) for cell in cells]}
        RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        write_page(cells, options.ways)
    return int(any(cell.verdict == "wrong" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
