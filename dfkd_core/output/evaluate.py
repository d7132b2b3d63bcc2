"""Measurements of a student for the report: agreement with its teacher, latency, and the versions of the software."""

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

import dfkd_core
from dfkd_core.images.batch import Labelled
from dfkd_core.interface import TeacherInterface
from dfkd_core.networks.interface import from_output, to_input, to_output
from dfkd_core.networks.teacher import InputSpace
from dfkd_core.output.provenance import cpu_name, packages
from dfkd_core.pulse import Pulse
from dfkd_core.report import Agreement, ClassAgreement, Latency, Versions

CONFIDENCE = 0.95
WARM_UP_SECONDS = 0.2
FEWEST_REPEATS = 5
DTYPES: dict[str, type[np.number[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


@torch.no_grad()
def evaluate(
    path: Path,
    audit: Labelled,
    interface: TeacherInterface,
    space: InputSpace,
    *,
    threads: int = 1,
    chunk: int = 256,
    pulse: Pulse | None = None,
) -> Agreement:
    """Return the agreement of the student's ONNX file with the teacher's logits on the audit set.

    The file takes and returns what `interface` says. Both networks are compared in the form that the file returns: if
    that is probabilities, logits are their logarithms.
    """
    run, pulse = file_runtime(path, interface, threads=threads), pulse or Pulse()
    found = []
    for images in audit.split(chunk):
        found.append(run(to_input(images.cpu(), interface, space)))
        pulse.beat()
    expected = to_output(audit.teacher_logits.cpu().float(), interface)
    return agreement(from_output(expected, interface), from_output(torch.cat(found), interface))


def file_runtime(path: Path, interface: TeacherInterface, *, threads: int = 1) -> Callable[[Tensor], Tensor]:
    """Return the ONNX file in ONNX Runtime, as a function from what it takes to what it returns."""
    session = open_session(path, threads=threads)
    outputs = [interface.output_name]
    return lambda inputs: torch.from_numpy(session.run(outputs, {interface.input_name: inputs.numpy()})[0])


@torch.no_grad()
def agreement(teacher_logits: Tensor, student_logits: Tensor) -> Agreement:
    """Return the agreement between two sets of logits (N, num_classes), N ≥ 1, with its exact 95 % interval."""
    teacher, student = teacher_logits.detach().double().cpu(), student_logits.detach().double().cpu()
    if teacher.shape != student.shape or teacher.ndim != 2 or not len(teacher):
        raise ValueError(f"logits of shapes {tuple(teacher.shape)} and {tuple(student.shape)} cannot be compared")
    agrees = teacher.argmax(1) == student.argmax(1)  # (N,)
    per_class = _per_class(teacher.argmax(1), agrees, num_classes=teacher.shape[1])
    kl = kl_divergence(teacher, student)
    difference = (teacher - student).abs()
    return Agreement(
        value=agrees.double().mean().item(),
        interval=list(clopper_pearson(int(agrees.sum()), len(agrees))),
        confidence=CONFIDENCE,
        n=len(agrees),
        kl_mean=kl.mean().item(),
        kl_p95=float(np.percentile(kl.numpy(), 95)),
        logit_diff_mean=difference.mean().item(),
        logit_diff_max=difference.max().item(),
        worst_class=worst_class(per_class),
        per_class=per_class,
    )


def kl_divergence(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """KL(teacher ‖ student) of the softmax outputs of logits (N, num_classes), in nats, per image: (N,)."""
    teacher, student = F.log_softmax(teacher_logits, 1), F.log_softmax(student_logits, 1)
    # Rounding may leave -1e-17 where both are the same.
    return (teacher.exp() * (teacher - student)).sum(1).clamp_min(0)


def clopper_pearson(successes: int, n: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided interval of a binomial share (Clopper & Pearson 1934): quantiles of beta distributions."""
    from scipy.special import betaincinv

    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} of {n} is no share")
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def worst_class(per_class: Sequence[ClassAgreement]) -> ClassAgreement:
    """Return the least agreement among classes with images; of equals the one with more images, then the first."""
    seen = [(one.agreement, -one.count, one.class_index, one) for one in per_class if one.agreement is not None]
    return min(seen)[-1]


def latency(
    path: Path,
    input_dims: Sequence[int],
    *,
    threads: int = 1,
    batch: int = 1,
    repeats: int = 200,
    pulse: Pulse | None = None,
) -> Latency:
    """Measure one ONNX Runtime call on the CPU. `input_dims` are the sizes of one image as the file takes it.

    A graph of fixed batch is timed at that. `repeats` is an upper limit: slow networks stop after ten seconds, but
    never before five calls. `pulse` beats after each call.
    """
    session = open_session(path, threads=threads)
    source = session.get_inputs()[0]
    declared = next(iter(source.shape), None)  # a file may declare no shape at all
    size = declared if isinstance(declared, int) else batch
    numbers, dtype = np.random.default_rng(0), DTYPES[source.type]
    images = numbers.standard_normal((size, *input_dims))
    images = (numbers.integers(0, 256, images.shape) if dtype is np.uint8 else images).astype(dtype)
    feed = {source.name: images}
    pulse = pulse or Pulse()
    _time(session, feed, repeats=repeats, seconds=WARM_UP_SECONDS, pulse=pulse)
    taken = _time(session, feed, repeats=repeats, seconds=10.0, pulse=pulse)
    p5, median, p95 = (float(value) for value in np.percentile(taken, (5, 50, 95)))
    return Latency(
        median_ms=median, p5_ms=p5, p95_ms=p95, repeats=len(taken), threads=threads, batch=size, cpu=cpu_name()
    )


def open_session(path: Path, *, threads: int = 1) -> Any:  # Any: ONNX Runtime has no types
    """Return an ONNX Runtime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def versions() -> Versions:
    """Versions of what is imported here."""
    import onnx
    import onnxruntime

    return Versions(
        dfkd=dfkd_core.__version__,
        python=platform.python_version(),
        torch=str(torch.__version__),
        onnx=onnx.__version__,
        onnxruntime=onnxruntime.__version__,
        packages=packages(),
    )


def _per_class(classes: Tensor, agrees: Tensor, *, num_classes: int) -> list[ClassAgreement]:
    counts = torch.bincount(classes, minlength=num_classes).tolist()
    hits = torch.bincount(classes[agrees], minlength=num_classes).tolist()
    return [
        ClassAgreement(class_index=index, count=count, agreement=hit / count if count else None)
        for index, (count, hit) in enumerate(zip(counts, hits, strict=True))
    ]


def _time(
    session: Any, feed: dict[str, npt.NDArray[Any]], *, repeats: int, seconds: float, pulse: Pulse
) -> list[float]:
    """Milliseconds of each call."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < repeats and (time.perf_counter() < until or len(taken) < FEWEST_REPEATS):
        started = time.perf_counter_ns()
        session.run(None, feed)
        taken.append((time.perf_counter_ns() - started) / 1e6)
        pulse.beat()
    return taken
