"""Build a `torch.fx.GraphModule` from a plan: generated Python code that calls PyTorch modules and functions.

No name from the file enters the generated code: modules are named after their operator and position.
"""

import operator
from typing import Any

import torch
from torch import fx, nn

from dfkd_core.errors import OperatorUnsupported
from dfkd_core.onnx_import.ir.biases import biases_of
from dfkd_core.onnx_import.ir.parse import readable
from dfkd_core.onnx_import.ir.plan import PASSING, Plan, Scaled, Step
from dfkd_core.teachers import functions
from dfkd_core.teachers.functions import FUNCTIONS
from dfkd_core.teachers.modules import module_of, tensor_of


def network_from_plan(plan: Plan) -> fx.GraphModule:
    """Return the float32 network from images (N, C, H, W) to logits (N, num_classes), for any N.

    Raises:
        OperatorUnsupported: a step has no translation.
    """
    return _Builder(plan).build()


def module_name(step: Step, number: int) -> str:
    """Return the name of the module that computes a step, if one does; `number` is the step's place in its plan."""
    return f"{step.op.lower()}_{number}"


def classifier_of(network: fx.GraphModule, num_classes: int) -> nn.Module | None:
    """Return the linear module that computes the logits, or None if another kind of step computes them."""
    output = next(node for node in reversed(network.graph.nodes) if node.op == "output")
    node = output.args[0]
    while isinstance(node, fx.Node) and node.meta.get("op") in PASSING:
        node = node.args[0]
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = network.get_submodule(str(node.target))
    return module if isinstance(module, nn.Linear) and module.out_features == num_classes else None


class _Builder:
    """Translates the steps of a plan in order. `at` maps the name of a value to its fx node."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.at: dict[str, fx.Node] = {plan.input_name: self.graph.placeholder("images")}
        self.batch: fx.Node | None = None
        self.num_constants = 0
        self.max_pooled = {step.inputs[0] for step in plan.steps if step.op == "MaxPool"}
        self.biases, self.absorbed = biases_of(plan)

    def build(self) -> fx.GraphModule:
        for number, step in enumerate(self.plan.steps):
            if number not in self.absorbed:
                self._add(number, step)
        self.graph.output(self.at[self.plan.output_name])
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph, "ImportedTeacher").eval()

    def _add(self, number: int, step: Step) -> None:
        if step.op == "Identity":
            self.at[step.outputs[0]] = self._operand(step.inputs[0])
            return
        bias = self.biases.get(number)
        module = module_of(self.plan, step, None if bias is None else self.plan.constants[bias[1]])
        if module is not None:
            name = module_name(step, number)
            self.root.add_module(name, module)
            node = self.graph.call_module(name, (self._operand(step.inputs[0]),))
        else:
            node = self._function(step)
        node.meta["op"] = step.op
        if step.op == "Split":
            for index, name in enumerate(step.outputs):
                self.at[name] = self.graph.call_function(operator.getitem, (node, index))
        else:
            self.at[step.outputs[0] if bias is None else bias[0]] = node

    def _function(self, step: Step) -> fx.Node:
        operands = [self._operand(name) for name in step.inputs]
        match step.op:
            case "Slice":
                return self._slice(step, operands[0])
            case "Gather":
                return self._gather(step, operands[0])
            case "GatherND":
                indices = self._store(torch.tensor(step.attributes["indices"], dtype=torch.int64))
                axes = {"axes": step.attributes["axes"]}
                return self.graph.call_function(functions.gather_nd, (operands[0], indices), axes)
            case "Softmax" | "LogSoftmax":
                how = torch.softmax if step.op == "Softmax" else torch.log_softmax
                return self.graph.call_function(how, (operands[0], step.attributes["axis"]))
        function = FUNCTIONS.get(step.op)
        if step.op == "Pad" and step.attributes["mode"] == "constant" and step.outputs[0] in self.max_pooled:
            function = functions.pad_before_max_pool
        if function is None:
            line = f"{readable(step.name)}: {step.op} — its weights depend on the images"
            raise OperatorUnsupported(f"a node of the ONNX graph cannot be taken: {line}", nodes=[line])
        settled = {key: self._size(value) for key, value in step.attributes.items()}
        if step.op == "Reshape" and len(settled["shape"]) == 2 and step.attributes["shape"][0] == Scaled(1):
            settled["shape"] = (settled["shape"][0], -1)  # a flatten fits pruned networks too
        return self.graph.call_function(function, tuple(operands), settled)

    def _slice(self, step: Step, node: fx.Node) -> fx.Node:
        for axis, start, stop, stride in step.attributes["cuts"]:
            if stride > 0:
                settled = {"axis": axis, "start": self._size(start), "stop": self._size(stop), "step": stride}
                node = self.graph.call_function(functions.cut, (node,), settled)
            else:
                indices = self._store(torch.arange(start, stop, stride))
                node = self.graph.call_function(functions.gather, (node, indices), {"axis": axis})
        return node

    def _gather(self, step: Step, node: fx.Node) -> fx.Node:
        axis, indices = step.attributes["axis"], step.attributes["indices"]
        if isinstance(indices, int):
            return self.graph.call_function(functions.pick, (node,), {"axis": axis, "index": indices})
        stored = self._store(torch.tensor(indices, dtype=torch.int64))
        return self.graph.call_function(functions.gather, (node, stored), {"axis": axis})

    def _operand(self, name: str | None) -> Any:
        """Return the node of a value. A constant becomes a parameter or a buffer at its first use."""
        if name is None:
            return None
        if name not in self.at:
            self.at[name] = self._store(tensor_of(self.plan.constants[name]))
        return self.at[name]

    def _store(self, tensor: torch.Tensor) -> fx.Node:
        learned = tensor.is_floating_point() and tensor.dim() > 0
        name = f"constant_{self.num_constants}"
        self.num_constants += 1
        if learned:
            self.root.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        else:
            self.root.register_buffer(name, tensor)
        return self.graph.get_attr(name)

    def _size(self, value: Any) -> Any:
        """Return an attribute in which nodes compute the sizes that depend on the batch size."""
        if isinstance(value, tuple):
            return tuple(self._size(entry) for entry in value)
        if not isinstance(value, Scaled):
            return value
        if self.batch is None:
            images = self.at[self.plan.input_name]
            with self.graph.inserting_after(images):
                self.batch = self.graph.call_method("size", (images, 0))
        if value.factor == 1:
            return self.batch
        return self.graph.call_function(operator.mul, (self.batch, value.factor))
