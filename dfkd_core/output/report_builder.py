"""The facts of the report that are read off the files: the teacher's, the student's, and those of both together."""

from pathlib import Path

import torch

from dfkd_core.inspection.inspection import Inspection, inspect_file
from dfkd_core.interface import TeacherInterface
from dfkd_core.loop.distill import Distilled
from dfkd_core.networks.teacher import InputSpace
from dfkd_core.output.evaluate import latency
from dfkd_core.output.provenance import file_facts
from dfkd_core.pulse import Pulse
from dfkd_core.report import StudentFacts, TeacherFacts, TeacherVerification, WeightsInput
from dfkd_core.spec.teacher import InputSpec, TeacherSpec
from dfkd_core.students.prepare import Student

Shape = tuple[int, int, int]  # (C, H, W)


def teacher_facts(
    path: Path, inspection: Inspection, verification: TeacherVerification, shape: Shape, *, pulse: Pulse
) -> TeacherFacts:
    """Return digest, size and latency of the teacher's file, with what inspection and verification found.

    Files that compute in float64 are not timed: ONNX Runtime has no convolution of such numbers.
    """
    interface = inspection.interface
    assert interface is not None  # the spec was resolved with this inspection
    runs_as_it_is = inspection.format == "onnx" and "float64-to-float32" not in inspection.normalisations
    return TeacherFacts(
        file=file_facts(path),
        format=inspection.format,
        parameters=inspection.parameters,
        macs=inspection.macs,
        latency=latency(path, interface.dims_of(shape), pulse=pulse) if runs_as_it_is else None,
        interface=interface,
        input_space=inspection.input_space,
        depth=verification,
    )


def student_facts(
    student: Student, *, onnx: Path, safetensors: Path, interface: TeacherInterface, space: InputSpace, pulse: Pulse
) -> StudentFacts:
    """Return size and latency of the student's files, with how it was built and what they take and return."""
    return StudentFacts(
        architecture=student.name,
        width=student.width,
        options=student.options,
        init=student.init,
        parameters=student.parameters,
        macs=_macs(student, onnx, interface, space.shape),
        onnx=file_facts(onnx),
        safetensors=file_facts(safetensors),
        interface=interface,
        weights_input=WeightsInput(offset=space.offset, scale=space.scale),
        latency=latency(onnx, interface.dims_of(space.shape), pulse=pulse),
    )


def _macs(student: Student, onnx: Path, interface: TeacherInterface, shape: Shape) -> int:
    """Return the multiply-adds for one image, from the architecture's description or the exported graph."""
    if student.description is not None:
        return student.description.macs
    told = InputSpec(shape=list(shape), layout=None if interface.input_rank == 3 else interface.layout)
    found = inspect_file(onnx, TeacherSpec(input=told)).macs
    assert found is not None  # the exported file fixes the size of its images
    return found


def counters(distilled: Distilled) -> dict[str, int]:
    """Return how often the loop did each kind of costly work."""
    return {
        "student_updates": distilled.student_updates,
        "images_synthesized": distilled.images_synthesized,
        "teacher_forwards": distilled.teacher_forwards,
        "rollbacks": distilled.rollbacks,
    }


def device_name(device: torch.device) -> str:
    """Return the device of the report: "cpu", or "cuda: " with the model of the GPU."""
    return "cpu" if device.type == "cpu" else f"cuda: {torch.cuda.get_device_name(device)}"
