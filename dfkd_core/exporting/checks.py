"""What a written file is checked for: the service's inspection, the network's logits, the first stage of a job."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dfkd_core.errors import ParityError
from dfkd_core.exporting.request import Exported
from dfkd_core.inspection.inspection import parse_file
from dfkd_core.networks.interface import to_input, to_output
from dfkd_core.networks.teacher import Teacher
from dfkd_core.output.evaluate import open_session
from dfkd_core.output.provenance import file_facts
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.teachers import load_teacher
from dfkd_core.teachers.verification import BATCHES, TOLERANCE, draw_images, verification_facts, verify_teacher


def checked(
    path: Path, spec: TeacherSpec, notes: Sequence[str], *, network: nn.Module | None = None, batch: int | None = None
) -> Exported:
    """Inspect the file as the service does before a job, compare it with the network, and verify it as a job does.

    Raises:
        TeacherError: the inspection, the comparison or the verification refuses the file.
    """
    inspection, parsed = parse_file(path, spec)
    teacher, difference = load_teacher(path, spec, parsed=parsed), None
    if network is not None:
        reading = None if spec.architecture is not None else _runtime(path)
        difference = _difference(network, teacher, reading, batch=batch)
    found = verify_teacher(teacher, path, generator=torch.Generator().manual_seed(0), parsed=parsed)
    return Exported(
        path=path,
        file=file_facts(path),
        told=list(notes),
        max_abs_diff=difference,
        inspection=inspection,
        depth=verification_facts(found),
        teacher=spec,
    )


def _runtime(path: Path) -> Callable[[Tensor], Tensor]:
    """Return the file in ONNX Runtime as a function of what it takes."""
    session = open_session(path)
    name = session.get_inputs()[0].name
    return lambda inputs: torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])


@torch.no_grad()
def _difference(
    network: nn.Module, teacher: Teacher, runtime: Callable[[Tensor], Tensor] | None, *, batch: int | None
) -> float:
    """Return the largest difference between what the network returns and what the file does.

    `runtime` runs the file; without it our own reading of the file is compared.

    Raises:
        ParityError: the outputs differ in shape, or by more than the tolerance.
    """
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for count in BATCHES if batch is None else (batch,):
        images = draw_images(teacher, count, generator)
        inputs = to_input(images, teacher.interface, teacher.input_space)
        expected = network(inputs)
        found = to_output(teacher.label(images), teacher.interface).float() if runtime is None else runtime(inputs)
        if expected.shape != found.shape:
            raise ParityError(f"the network returns {tuple(expected.shape)}, the file {tuple(found.shape)}")
        difference = (expected - found).abs().max().item()
        if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):  # NaN fails too
            raise ParityError(
                f"the file and the network differ by {difference:.3g} on random images",
                hint="Does the network draw at random, or depend on more than its images, in eval mode? With an "
                "architecture: names and shapes fit, what is computed does not; is it another variant?",
            )
        worst = max(worst, difference)
    return worst
