"""A teacher as a network to narrow: its plan, and how a network is made of a narrower plan."""

from torch import nn

from dfkd_core.networks.teacher import Teacher
from dfkd_core.onnx_import.reader import ParsedOnnx
from dfkd_core.students import narrowing
from dfkd_core.students.build import Network
from dfkd_core.students.narrowing import Original
from dfkd_core.teachers.fx_builder import module_name, network_from_plan
from dfkd_core.teachers.onnx import with_pixels


def original_of(teacher: Teacher, parsed: ParsedOnnx | None) -> Original:
    """Return the teacher of an ONNX file, whose graph is `parsed`, or of the catalogue, as a network to narrow."""
    network = teacher.network
    if parsed is None:
        assert isinstance(network, Network)
        return narrowing.original_of(network)
    plan = with_pixels(parsed.plan, teacher.input_space)
    modules = dict(network.named_modules())
    names = {number: module_name(step, number) for number, step in enumerate(plan.steps)}
    layers = {number: _layer(name, modules[name]) for number, name in names.items() if name in modules}
    return Original(network, plan, network_from_plan, layers)


def _layer(name: str, module: nn.Module) -> str:
    """The name of the convolution where a module pads its images first, else the name of the module."""
    if isinstance(module, nn.Sequential):
        return next(f"{name}.{child}" for child, part in module.named_children() if hasattr(part, "weight"))
    return name
