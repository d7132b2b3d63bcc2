"""What one image costs the network of an ONNX graph, from its plan (torch-free)."""

import math
from typing import TYPE_CHECKING

from dfkd_core.architectures.cost import CostCounter, Kind, NetworkCost, kernel_of_convolution

if TYPE_CHECKING:  # the service imports this module and must not load numpy's arrays of a plan
    from dfkd_core.onnx_import.ir.plan import Plan, Step

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_POOLINGS = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool")
_KEEPING = ("Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Selu", "Softplus")
_VIEWS = ("Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose")


def cost_of_plan(plan: "Plan") -> NetworkCost:
    """Return the cost of the network; steps that move no number cost nothing."""
    counter = CostCounter()
    for step in plan.steps:
        outputs = sum(math.prod(plan.shapes[name]) for name in step.outputs if name in plan.shapes)
        macs = plan.macs_of(step)
        if macs:
            kind, width = _kernel(plan, step)
            counter.multiply(kind, width, macs=macs, outputs=outputs)
        elif step.op == "BatchNormalization":
            counter.normalise(outputs)
        elif step.op in _POOLINGS and len(read := plan.shapes.get(str(step.inputs[0]), ())) > 1:
            counter.pool(math.prod(read), channels=read[1], outputs=outputs)
        elif step.op not in _VIEWS:
            counter.pass_over(outputs, keeps_input=step.op in _KEEPING)
    return counter.total()


def _kernel(plan: "Plan", step: "Step") -> tuple[Kind, float]:
    """Return kind and width of a step with multiply-adds."""
    if step.op in _CONVOLUTIONS:
        weight = plan.shapes[str(step.inputs[1])]  # (out, in of a group, kernel...), or (in, out of a group, kernel...)
        groups = int(step.attributes.get("group", step.attributes.get("groups", 1)))
        inner, out = (weight[1], weight[0]) if step.op == "Conv" else (weight[0] // groups, weight[1] * groups)
        area = math.prod(weight[2:])
        return kernel_of_convolution(inner_channels=inner, groups=groups, kernel_area=area, out_channels=out)
    sides = [plan.shapes[name][-1] for name in step.inputs[:2] if name and plan.shapes.get(name)]
    return Kind.MATMUL, min([*sides, plan.shapes[step.outputs[0]][-1]])
