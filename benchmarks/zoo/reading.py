"""`python -m benchmarks.zoo.reading FOLDER`: reads a folder of exports and compares each with the network it came from.

An export is `read` when our logits equal ONNX Runtime's and the original network's, and our gradient at the images is
the original's, both within fixed limits. A gradient that misses its limit is computed again in float64, which tells
what rounding does to it; then three times the rounding error is allowed, because the original's may be rounded too, and
each image may move by the rounding of float32, which takes a unit of the original across the kink of its activation.
Otherwise the line has the code with which the teacher is refused, and the reason; `cannot-export` means that the
exporter failed, or that its file is another network for ONNX Runtime too. Exit status 1 where an export is taken and
computed wrongly.
"""

import argparse
import copy
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.teacher_zoo import GRADIENT, PARITY, Cell
from benchmarks.zoo.shelf import beside
from dfkd_core.errors import ParityError, TeacherError
from dfkd_core.inspection.inspection import inspect_file
from dfkd_core.networks.interface import to_output
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.teachers import Teacher, load_teacher
from dfkd_core.teachers.verification import verify_teacher

KINKS = 0.05  # error of one image's gradient that may still come from rounding
ROUNDINGS = 3.0  # rounding errors by which the gradient in float64 may miss the original's, up to KINKS
MOVES, MOVED = 8, 3e-6  # images beside each one, and how far they lie from it, as a share of its values
TRACEBACK = "Traceback (most recent call last):\n"
CAUSE = "The above exception was the direct cause"  # between the traceback of a cause and that of what it became
OTHER = "the file is another network: in ONNX Runtime too, its logits differ by {:.0e} of the largest"
OTHER_NETWORK = 10 * PARITY  # beyond all rounding: the file that ONNX Runtime and we agree on is not the original


def read(path: Path) -> Cell:
    """Read one export, as benchmarks/zoo/shelf.py lays it down; `path` is that of the .onnx."""
    net, _, way = path.name.removesuffix(".onnx").rpartition(".")
    refused = beside(path, ".txt")
    if refused.exists():
        return Cell(net, way, "cannot-export", _reason(refused.read_text()))
    with np.load(beside(path, ".npz")) as stored:
        answers = dict(stored)
    spec = _spec(path, answers)
    began = time.monotonic()
    try:
        found = inspect_file(path, spec)
        teacher = load_teacher(path, spec)
    except TeacherError as error:
        return Cell(net, way, error.code, error.detail)
    compared = _compare(teacher, answers)
    differs = compared.parity > OTHER_NETWORK
    try:
        depth = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0))
    except TeacherError as error:
        if differs and not isinstance(error, ParityError):  # ONNX Runtime, which is asked first, agrees with us
            return Cell(net, way, "cannot-export", OTHER.format(compared.parity))
        return Cell(net, way, error.code, error.detail)
    own = (depth.max_abs_diff or 0.0) / compared.scale
    if own <= PARITY and differs:
        return Cell(net, way, "cannot-export", OTHER.format(compared.parity))
    limit = max(GRADIENT, min(KINKS, ROUNDINGS * (compared.rounding or 0.0)))
    error = depth.gradient_error if compared.gradient is None else compared.gradient  # kinks disturb differences
    whole = max(own, compared.parity) <= PARITY and error <= limit
    return Cell(
        net,
        way,
        "read" if whole else "wrong",
        parity=max(own, compared.parity),
        gradient=compared.gradient,
        rounding=compared.rounding,
        finite_difference=depth.gradient_error,
        batchnorm=found.batchnorm.status,
        normalisations=found.normalisations,
        seconds=round(time.monotonic() - began, 2),
    )


def _spec(path: Path, answers: dict[str, np.ndarray]) -> TeacherSpec:
    """Return what the exporter says of the teacher, or what follows from the shape of its images alone."""
    told = beside(path, ".json")
    if told.exists():
        return TeacherSpec.model_validate_json(told.read_text())
    shape = next(array.shape[1:] for name, array in answers.items() if name.startswith("images"))
    return TeacherSpec(input=InputSpec(shape=list(shape), mean=[0.5] * shape[0], std=[0.25] * shape[0]))


def _reason(log: str) -> str:
    """Return the line of an exporter's traceback that names the error, or its cause; without colours and paths.

    An error that was raised from another one is an outer one, and its cause is returned. One that was raised while
    another was handled, as by an exporter that tries several ways, stands for itself.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m|(?<!\w)/[^\s:]*/", "", log)
    _, *errors = plain.split(TRACEBACK)
    while len(errors) > 1 and CAUSE in errors[-2]:
        del errors[-1]
    lines = (errors[-1] if errors else plain).strip("\n").splitlines()
    outside = [line for line in lines if line.strip() and not line[0].isspace()]
    return " ".join((outside or [""])[0 if errors else -1].split())[:160]


@dataclass(frozen=True)
class Comparison:
    """How far our reading is from the original; errors are shares of what the original says."""

    parity: float  # largest error of the outputs
    scale: float  # largest logit
    gradient: float | None  # error of the gradients at the images; None where the original gives none
    rounding: float | None = None  # if the gradients are those in float64: the error of those in float32 to them


def _compare(teacher: Teacher, answers: dict[str, np.ndarray]) -> Comparison:
    parity, scale, slopes = 0.0, 0.0, []
    counts = sorted(name.removeprefix("images") for name in answers if name.startswith("images"))
    found = {count: _outputs_and_gradient(teacher, teacher, answers, count) for count in counts}
    for count, (logits, outputs, gradient) in found.items():
        wanted = _original(answers, count)
        parity = max(parity, float((outputs - wanted).abs().max() / wanted.abs().max()))
        scale = max(scale, float(logits.abs().max()))
        if gradient is not None:
            slopes += _errors(gradient, torch.tensor(answers[f"gradient{count}"]))
    error = _error(slopes) if slopes else None
    if error is None or error <= GRADIENT:
        return Comparison(parity, scale, error)
    exact, slopes, rounding = copy.deepcopy(teacher.network).double(), [], []
    for count, (_, _, single) in found.items():
        if single is None:
            continue
        expected = torch.tensor(answers[f"gradient{count}"])
        near = [_gradient_nearby(teacher, exact, answers, count, seed) for seed in range(MOVES + 1)]
        slopes += [min(errors) for errors in zip(*(_errors(double, expected) for double in near), strict=True)]
        rounding += _errors(single, near[0])
    return Comparison(parity, scale, _error(slopes), _error(rounding))


def _gradient_nearby(
    teacher: Teacher, network: nn.Module, answers: dict[str, np.ndarray], count: str, seed: int
) -> Tensor:
    """Return the gradient of the network at images a rounding error away; at the images themselves for seed 0."""
    images = answers[f"images{count}"].astype(np.float64)
    draws = np.random.default_rng(seed).standard_normal(images.shape)
    moved = images * (1 + MOVED * draws) if seed else images
    _, _, gradient = _outputs_and_gradient(teacher, network, answers | {f"images{count}": moved}, count)
    assert gradient is not None
    return gradient


def _original(answers: dict[str, np.ndarray], count: str) -> Tensor:
    return torch.tensor(answers.get(f"probabilities{count}", answers.get(f"logits{count}")))


def _outputs_and_gradient(
    teacher: Teacher, network: nn.Module, answers: dict[str, np.ndarray], count: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return logits, outputs in the original's form, and the gradient of their weighted sum, in the network's dtype."""
    dtype = next((tensor.dtype for tensor in network.parameters()), torch.float32)
    space = teacher.input_space
    images = torch.tensor(answers[f"images{count}"], dtype=dtype, requires_grad=True)
    logits = network((images - space.offset) / space.scale if space.is_scaled else images)
    outputs = to_output(logits, teacher.interface).to(dtype).reshape(_original(answers, count).shape)
    gradient = None
    if f"gradient{count}" in answers:
        weights = torch.tensor(answers[f"weights{count}"], dtype=dtype)
        (gradient,) = torch.autograd.grad((outputs * weights).sum(), images)
    return logits.detach(), outputs.detach(), gradient


def _errors(gradient: Tensor, expected: Tensor) -> list[float]:
    """Return the error of the gradient (N, C, H, W) at each image, as a share of the expected one's length."""
    difference = (gradient - expected).flatten(1).norm(dim=1)
    return [float(error) for error in difference / expected.flatten(1).norm(dim=1)]


def _error(slopes: list[float]) -> float:
    """Return the median over the images of their gradients' errors; the largest where one is beyond all rounding.

    A ReLU that rounding puts on the other side of zero changes the gradient of its image by up to a few per cent.
    """
    return float(np.median(slopes)) if max(slopes) <= KINKS else max(slopes)


def exports(folder: Path) -> list[Path]:
    """Return the exports of a folder: the paths of their .onnx, which those that failed lack."""
    return sorted({beside(path, ".onnx") for path in folder.iterdir() if path.suffix in (".onnx", ".txt")})


def line(found: Cell) -> str:
    """Return one line about a reading."""
    numbers = "" if found.parity is None else f"parity {found.parity:.0e} gradient {found.gradient or 0.0:.0e}"
    return f"{found.net:<28} {found.way:<12} {found.verdict:<24} {found.because or numbers}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the folder and print a line for each export."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.reading", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[""], help="only exports whose names begin like one of these")
    parser.add_argument("--record", type=Path, help="write the readings to this file as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    readings = []
    for path in exports(options.folder):
        if path.name.startswith(tuple(options.only)):
            readings.append(found := read(path))
            print(line(found), flush=True)
    taken = sum(reading.verdict == "read" for reading in readings)
    exported = sum(reading.verdict != "cannot-export" for reading in readings)
    print(f"{taken} of {exported} exports read; {len(readings) - exported} that the exporters refused")
    if options.record is not None:
        options.record.write_text(json.dumps([asdict(reading) for reading in readings], indent=1) + "\n")
    return int(any(reading.verdict == "wrong" for reading in readings))


if __name__ == "__main__":
    sys.exit(main())
