"""The plan of an architecture of the catalogue: its layers as the steps that the ONNX importer would have read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dfkd_core.architectures import layers
from dfkd_core.architectures.layers import Chain, Layer, NetworkDescription
from dfkd_core.interface import plain_interface
from dfkd_core.onnx_import.ir.plan import Array, Plan, Scaled, Shape, Step

IMAGES = "images"
STATISTICS = ("running_mean", "running_var")


def plan_of(description: NetworkDescription, tensors: Mapping[str, Array] | None = None) -> Plan:
    """Return the plan of a description. Each step that has weights is named as its layer.

    `tensors` are the network's parameters and running statistics. A convolution may have a bias that the description
    does not know, and a BatchNorm may be missing, as after folding. Without `tensors` all weights are zeros, which take
    no memory.
    """
    if tensors is None:
        shapes = description.tensors()
        tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    builder = _Builder(tensors, {IMAGES: description.input_shape})
    output = builder.chain(description.layers, IMAGES, prefix="")
    used = {name for step in builder.steps for name in step.inputs if name is not None and name in tensors}
    weights = {name: tensors[name] for name in used}
    return Plan(
        interface=plain_interface(description.num_classes),
        input_name=IMAGES,
        output_name=output,
        head=output,
        head_form="logits",
        input_shape=description.input_shape,
        num_classes=description.num_classes,
        batch="dynamic",
        declared_batch=None,
        opset=0,
        steps=tuple(builder.steps),
        constants=weights,
        learned={name: array.size for name, array in weights.items() if not name.endswith(STATISTICS)},
        shapes={name: (1, *shape) for name, shape in builder.shapes.items()}
        | {name: array.shape for name, array in weights.items()},
        operators={},
        normalisations=(),
        is_embedding=False,
    )


@dataclass(slots=True)
class _Builder:
    tensors: Mapping[str, Array]
    shapes: dict[str, Shape]  # value → its shape without the batch axis
    steps: list[Step] = field(default_factory=list)

    def chain(self, chain: Chain, value: str, *, prefix: str) -> str:
        """Add the steps of a chain of layers, and return the name of its output."""
        for name, layer in chain:
            value = self._layer(layer, value, f"{prefix}{name}")
        return value

    def _layer(self, layer: Layer, value: str, path: str) -> str:
        match layer:
            case layers.Sequential():
                return self.chain(layer.chain, value, prefix=f"{path}.")
            case layers.Residual():
                return self._residual(layer, value, f"{path}.")
            case layers.BatchNorm() if f"{path}.weight" not in self.tensors:
                return value
        output = f"{path}.output"
        self.shapes[output] = layer.output_shape(self.shapes[value])
        names = (f"{path}.{name}" for name in ("weight", "bias", *STATISTICS))
        weights = [name for name in names if name in self.tensors]
        op, attributes = _operation(layer, (1, *self.shapes[output]))
        self.steps.append(Step(op, path, (value, *weights), (output,), attributes))
        return output

    def _residual(self, block: layers.Residual, value: str, prefix: str) -> str:
        value = self.chain(block.before, value, prefix=prefix)
        body, shortcut = (self.chain(chain, value, prefix=prefix) for chain in (block.body, block.shortcut))
        added = f"{prefix}sum"
        self.shapes[added] = self.shapes[body]
        self.steps.append(Step("Add", added, (body, shortcut), (added,), {}))
        return self.chain(block.after, added, prefix=prefix)


def _operation(layer: Layer, shape: Shape) -> tuple[str, dict[str, Any]]:
    """The operator of a layer whose output has `shape`, and its attributes."""
    match layer:
        case layers.Conv():
            return "Conv", _of_convolution(layer)
        case layers.MaxPool() | layers.AvgPool():
            return "MaxPool" if isinstance(layer, layers.MaxPool) else "AveragePool", _of_pooling(layer.kernel)
        case layers.Flatten():
            return "Reshape", {"shape": (Scaled(1), *shape[1:])}
    others: dict[type[Layer], tuple[str, dict[str, Any]]] = {
        layers.Linear: ("Gemm", {"flip_a": False, "flip_b": True, "alpha": 1.0, "beta": 1.0}),
        layers.BatchNorm: ("BatchNormalization", {"epsilon": 1e-5}),
        layers.GlobalAvgPool: ("ReduceMean", {"axes": (2, 3), "keepdims": True}),
        layers.ReLU6: ("Clip", {"min": 0.0, "max": 6.0}),
        layers.Dropout: ("Identity", {}),
    }
    return others.get(type(layer), ("Relu", {}))


def _of_pooling(kernel: int) -> dict[str, Any]:
    window = {"kernel": (kernel, kernel), "strides": (kernel, kernel), "dilations": (1, 1), "pads": ((0, 0), (0, 0))}
    return {**window, "ceil_mode": False, "count_include_pad": False}


def _of_convolution(layer: layers.Conv) -> dict[str, Any]:
    return {
        "kernel": (layer.kernel, layer.kernel),
        "strides": (layer.stride, layer.stride),
        "dilations": (1, 1),
        "pads": ((layer.padding, layer.padding),) * 2,
        "group": layer.groups,
    }
