"""Load safetensors teachers, which hold the weights of an architecture of the catalogue."""

from pathlib import Path

import torch

from dfkd_core.inspection.formats.safetensors_header import read_header, read_tensors
from dfkd_core.inspection.named_teacher import describe_teacher
from dfkd_core.interface import plain_interface
from dfkd_core.networks.teacher import Teacher
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.students.build import build_network
from dfkd_core.teachers.input_space import space_of, warnings_of


def load_safetensors(path: Path, spec: TeacherSpec) -> Teacher:
    """Build the architecture that `spec` names, with the weights of the file.

    Raises:
        TeacherMismatch: the file does not fit the architecture.
        TeacherInvalid: the file is broken.
    """
    header = read_header(path)
    description = describe_teacher(spec, header)
    wanted = description.tensors()
    network = build_network(description, generator=torch.Generator().manual_seed(0))
    state = network.state_dict()
    for name, array in read_tensors(path, header):
        if name in wanted:
            state[name].copy_(torch.tensor(array))
    interface = plain_interface(description.num_classes)
    space = space_of(spec.input, description.input_shape, interface)
    return Teacher(
        network,
        space,
        num_classes=description.num_classes,
        classifier=network.classifier,
        warnings=warnings_of(space, folded=False),
        interface=interface,
    )
