"""Verification: do we compute what ONNX Runtime computes, and does a useful gradient reach the images?

The structural inspection never runs the file; this does, on random images from the teacher's input space.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dfkd_core.errors import ConstantTeacher, NotDifferentiable, ParityError, TeacherInvalid
from dfkd_core.images.procedural import procedural_images
from dfkd_core.inspection.formats.detection import TeacherFormat, sniff_file
from dfkd_core.interface import TeacherInterface
from dfkd_core.networks.interface import from_output, on_grid, to_input, to_output
from dfkd_core.networks.teacher import Teacher
from dfkd_core.onnx_import.advice import parity_hint
from dfkd_core.onnx_import.producer import exporter_of
from dfkd_core.onnx_import.reader import ParsedOnnx, read_plan
from dfkd_core.report import TeacherVerification

BATCHES = (1, 2, 7)
TOLERANCE = 1e-4  # largest allowed difference, as a share of the larger of 1 and the largest |logit|
TOLERANCE_FLOAT16 = 2e-2  # the file computes in half precision, we do not
TOLERANCE_OUTPUT = 2e-2  # for what the file returns if these are no logits; it may clip or round them
GRADIENT_TOLERANCE = 1e-2
DIRECTIONS = 5
STEPS = (1e-8, 1e-6, 1e-4)  # of the finite differences in float64, in units of the input space's range
FLOAT32, FLOAT64 = 2.0**-23, 2.0**-52  # units in the last place of 1
MOST_ROUNDING = 4.0  # rounding errors by which logits that do not depend on the image may differ
MOST_DEAD = 0.99

Runtime = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True, slots=True)
class Verification:
    """The results of running the teacher: the comparison with ONNX Runtime and the checks of its gradient."""

    max_abs_diff: float | None  # largest difference to ONNX Runtime; None where the file is not ONNX
    tolerance: float | None  # the largest difference allowed, scaled by the logits
    batches: tuple[int, ...]  # batch sizes compared
    gradient_error: float  # relative, of the gradient along random directions against finite differences; the median
    dead_input_fraction: float  # share of the input's values on which no logit depends
    outputs: Literal["logits", "log-probabilities"]


def verify_teacher(
    teacher: Teacher, path: Path, *, generator: torch.Generator, parsed: ParsedOnnx | None = None
) -> Verification:
    """Compare the teacher with ONNX Runtime, check its gradient and its outputs; seconds for a small teacher.

    `parsed` is what was read of an ONNX file before; without it the file is read here.

    Raises:
        ParityError: ONNX Runtime computes other logits.
        ConstantTeacher: the logits are the same whatever the image.
        NotDifferentiable: no useful gradient reaches the images.
        TeacherInvalid: the logits are not finite, are probabilities or depend on the other images of a batch, or ONNX
            Runtime refuses the file.
    """
    difference, tolerance = _check_parity(teacher, path, generator, parsed)
    images = draw_images(teacher, 8, generator)
    outputs = _check_outputs(teacher.label(images))
    exact = copy.deepcopy(teacher.network).cpu().double()
    rounding = rounding_of(teacher, exact, images[:2])
    _check_independence(exact, images[:4], rounding)
    _check_dependence(teacher, torch.cat([images[:4], draw_shapes(teacher, 4, generator)]), rounding)
    dead = _check_dead(teacher, images, generator)
    return Verification(
        max_abs_diff=difference,
        tolerance=tolerance,
        batches=BATCHES,
        gradient_error=_check_gradient(teacher, exact, images[:2], generator, rounding=rounding),
        dead_input_fraction=dead,
        outputs=outputs,
    )


def verification_facts(found: Verification) -> TeacherVerification:
    """Return the verification as a value of the report."""
    return TeacherVerification.model_validate({**asdict(found), "batches": list(found.batches)})


def draw_images(teacher: Teacher, count: int, generator: torch.Generator) -> Tensor:
    """Draw uniform images (count, C, H, W) of the input space, on the teacher's device."""
    space = teacher.input_space
    low, high = space.bounds()
    unit = torch.rand(count, *space.shape, generator=generator, device=generator.device).cpu()
    return on_grid(low + unit * (high - low), space).to(_device(teacher))


def draw_shapes(teacher: Teacher, count: int, generator: torch.Generator) -> Tensor:
    """Procedural images (count, C, H, W) between the bounds of the input space, on the teacher's device."""
    low, high = teacher.input_space.bounds()
    levels = procedural_images(teacher.input_space.shape, count, generator=generator, device=torch.device("cpu"))
    return torch.lerp(low, high, levels).to(_device(teacher))


def _device(teacher: Teacher) -> torch.device:
    return next((parameter.device for parameter in teacher.network.parameters()), torch.device("cpu"))


def _check_parity(
    teacher: Teacher, path: Path, generator: torch.Generator, parsed: ParsedOnnx | None
) -> tuple[float | None, float | None]:
    if sniff_file(path) is not TeacherFormat.ONNX:
        return None, None
    interface = teacher.interface
    if parsed is None:
        shape, layout = teacher.input_space.shape, interface.layout
        parsed = read_plan(path, input_shape=shape, layout=layout, output=interface.output_name)
    run, tolerance = _runtime(parsed)
    head = _head_interface(parsed)
    plan, model = parsed
    hint = parity_hint(exporter_of(model)[0], opset=plan.opset, fixed=plan.batch == "fixed")
    worst = 0.0
    for count in BATCHES:
        images = draw_images(teacher, count, generator)
        values, outputs = run(to_input(images.cpu(), interface, teacher.input_space))
        ours, theirs = teacher.label(images).cpu(), from_output(values, head)
        theirs = theirs.flip(1) if parsed.plan.head_is_reversed else theirs
        if not (ours.isfinite().all() and theirs.isfinite().all()):
            raise TeacherInvalid(
                "the teacher's logits are not finite",
                hint="Check teacher.input.mean and teacher.input.std, and the export.",
            )
        teacher.engine.pulse.beat()
        worst = max(worst, _difference(ours, theirs, tolerance, hint))
        _difference(to_output(ours, interface).float(), outputs.float(), max(tolerance, TOLERANCE_OUTPUT), hint)
    return worst, tolerance


def _head_interface(parsed: ParsedOnnx) -> TeacherInterface:
    """Return the value of the graph from which the logits are made, described as if it were the output."""
    plan = parsed.plan
    shape = list(plan.shapes[plan.head][1:])
    return plan.interface.model_copy(update={"output_form": plan.head_form, "output_shape": shape})


def _difference(ours: Tensor, theirs: Tensor, tolerance: float, hint: str) -> float:
    if ours.shape != theirs.shape:
        raise ParityError(f"ONNX Runtime returns shape {tuple(theirs.shape)}, our reading {tuple(ours.shape)}")
    difference = (ours - theirs).abs().max().item()
    scale = max(1.0, theirs.abs().max().item())
    if difference > tolerance * scale:
        raise ParityError(
            f"for {len(ours)} images our reading of the teacher differs from ONNX Runtime's by {difference:.3g} "
            f"on logits of up to {scale:.3g}",
            hint=hint,
        )
    return difference


def _runtime(parsed: ParsedOnnx) -> tuple[Runtime, float]:
    """Return the file in ONNX Runtime, and the tolerance for its logits.

    The function takes what the file takes, and returns the value from which the logits are made, and the output.
    """
    plan = parsed.plan
    session = _session(_with_head(parsed))
    names = [plan.head, plan.interface.output_name]

    def run(inputs: Tensor) -> list[Tensor]:
        array = inputs.float().numpy() if inputs.dtype == torch.float64 else inputs.numpy()  # the model has no float64
        size = plan.declared_batch or len(array)
        rows = []
        for start in range(0, len(array), size):
            chunk = array[start : start + size]
            full = np.concatenate([chunk, np.repeat(chunk[-1:], size - len(chunk), axis=0)])
            found = session.run(names, {plan.interface.input_name: full})
            rows.append([np.asarray(values)[: len(chunk)] for values in found])
        return [torch.from_numpy(np.concatenate(column).astype(np.float32)) for column in zip(*rows, strict=True)]

    halved = "float16-to-float32" in plan.normalisations
    return run, TOLERANCE_FLOAT16 if halved else TOLERANCE


def _with_head(parsed: ParsedOnnx) -> bytes:
    """Return the model with one more output: the value from which the logits are made."""
    plan, model = parsed
    added = plan.head != plan.interface.output_name
    if added:
        model.graph.output.add(name=plan.head)
    serialized: bytes = model.SerializeToString()
    if added:
        del model.graph.output[-1]
    return serialized


def _session(model: bytes) -> Any:  # Any: ONNX Runtime has no type information
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # Its optimiser is left out: it fuses a Pad of zeros into a MaxPool, whose border is minus infinity (1.31).
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class of their own
        raise TeacherInvalid(
            "ONNX Runtime refuses the teacher", hint="Check it with onnx.checker.check_model(path, full_check=True)."
        ) from error


def _check_outputs(logits: Tensor) -> Literal["logits", "log-probabilities"]:
    """(N, num_classes): probabilities are refused; logarithms of them serve as logits."""
    if not logits.isfinite().all():
        raise TeacherInvalid(
            "the teacher's logits are not finite", hint="Check teacher.input.mean and teacher.input.std."
        )
    ones = torch.ones(len(logits), device=logits.device)
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), ones, atol=1e-3):
        raise TeacherInvalid(
            "the teacher returns probabilities, not logits",
            hint="Export the network without what makes probabilities of its logits, such as a softmax or a sigmoid.",
        )
    normalised = torch.allclose(logits.logsumexp(1), 0 * ones, atol=1e-3)
    return "log-probabilities" if normalised else "logits"


def _gradient(network: nn.Module, images: Tensor, weights: Tensor) -> Tensor:
    """Gradient of the weighted sum of logits with respect to the images, of their shape."""
    images = images.detach().requires_grad_(True)
    score = (network(images) * weights).sum()
    if not score.requires_grad:
        raise NotDifferentiable("no gradient reaches the teacher's input")
    (gradient,) = torch.autograd.grad(score, images, allow_unused=True)
    if gradient is None:
        raise NotDifferentiable("no gradient reaches the teacher's input")
    return gradient


@torch.no_grad()
def rounding_of(teacher: Teacher, exact: nn.Module, images: Tensor) -> float:
    """Return the rounding error of float32 in the logits: the largest difference to `exact`, the network in float64.

    At least one unit in the last place of 1 or of the largest logit, because the error may be small by chance. At most
    what the comparison with ONNX Runtime allows, because a network that jumps can differ by more than rounding.
    """
    logits = teacher.label(images).cpu().double()
    reference = exact(images.cpu().double())
    scale = max(1.0, float(reference.abs().max()))
    return min(max(FLOAT32 * scale, float((logits - reference).abs().max())), TOLERANCE * scale)


@torch.no_grad()
def _check_independence(exact: nn.Module, images: Tensor, rounding: float) -> None:
    """Check that the logits of images (N, C, H, W) are those of each image alone, in float64."""
    points = images.cpu().double()
    together, alone = exact(points), torch.cat([exact(point[None]) for point in points])
    difference = float((together - alone).abs().max())
    if difference > max(MOST_ROUNDING * rounding, TOLERANCE * float(together.abs().max())):
        raise TeacherInvalid(
            f"the logits of an image depend on the other images of its batch: alone they differ by {difference:.3g}",
            hint="A classifier answers for each image by itself: leave what computes across the batch, such as a mean "
            "over axis 0, out of the network.",
        )


def _check_dependence(teacher: Teacher, images: Tensor, rounding: float) -> None:
    """Check that the logits tell very different images (N, C, H, W) apart by more than their rounding error."""
    logits = teacher.label(images)
    spread = (logits.amax(0) - logits.amin(0)).max().item()
    if spread <= MOST_ROUNDING * rounding:
        raise ConstantTeacher(
            "the logits do not depend on the image: over noise and shapes they differ by "
            f"{spread:.1e}, within the rounding of float32 ({MOST_ROUNDING * rounding:.1e})",
            hint="Either the network is untrained, or its images have another range than teacher.input.mean, "
            "teacher.input.std and teacher.input.range say.",
        )


def _check_dead(teacher: Teacher, images: Tensor, generator: torch.Generator) -> float:
    weights = _normal((len(images), teacher.num_classes), generator).to(images)
    gradient = _gradient(teacher, images, weights)
    if not gradient.isfinite().all():
        raise NotDifferentiable("the gradient at the teacher's input is not finite")
    dead = (gradient == 0).all(0).float().mean().item()
    if dead > MOST_DEAD:
        raise NotDifferentiable(
            f"the logits change from image to image, but their gradient is zero at {dead:.0%} of the input's values",
            hint="Leave rounding, thresholds and table look-ups out of the exported graph, and check that the images' "
            "range fits the teacher: teacher.input.mean, teacher.input.std and teacher.input.range.",
        )
    return dead


def _check_gradient(
    teacher: Teacher, exact: nn.Module, images: Tensor, generator: torch.Generator, *, rounding: float
) -> float:
    """Central differences along random directions, in float64; the median forgives kinks.

    `rounding` is the rounding error of the logits in float32, which bounds that of the differences.
    """
    points = images.cpu().double()
    weights = _normal((len(points), teacher.num_classes), generator).double()
    gradient = _gradient(exact, points, weights)
    span = max(high - low for low, high in zip(teacher.input_space.low, teacher.input_space.high, strict=True))
    noise = rounding * FLOAT64 / FLOAT32 * weights.abs().sum().item()  # of the weighted sum of logits in float64

    def score(images: Tensor) -> float:
        teacher.engine.pulse.beat()
        with torch.no_grad():
            return float((exact(images) * weights).sum())

    errors = []
    for _ in range(DIRECTIONS):
        direction = _normal(tuple(points.shape), generator).double().sign() * span
        floor = 1e-6 * span * gradient.abs().sum().item()
        claimed = (gradient * direction).sum().item()
        errors.append(_difference_error(score, points, direction, claimed=claimed, noise=noise, floor=floor))
    error = float(np.median(errors))
    if error > GRADIENT_TOLERANCE:
        raise NotDifferentiable(
            f"the gradient at the teacher's input is off by {error:.1%} of a finite difference",
            hint="Leave rounding, thresholds and table look-ups out of the exported graph.",
        )
    return error


def _difference_error(
    score: Callable[[Tensor], float], points: Tensor, direction: Tensor, *, claimed: float, noise: float, floor: float
) -> float:
    """Return the smallest relative error of a claimed directional derivative that a central difference shows.

    A small step suffers from rounding, which can change a difference by `noise / step`; a large one from curvature and
    kinks. What rounding explains is no error. Larger steps are tried only where smaller ones do not confirm the claim.
    """
    best = math.inf
    for step in STEPS:
        measured = (score(points + step * direction) - score(points - step * direction)) / (2 * step)
        scale, bar = max(abs(measured), abs(claimed), floor), noise / step
        error = max(0.0, abs(measured - claimed) - bar) / scale if scale else 0.0
        resolved = bar <= GRADIENT_TOLERANCE * scale
        if resolved or step == STEPS[-1]:
            best = min(best, error)
        if best <= GRADIENT_TOLERANCE:
            break
    return best


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device).cpu()
