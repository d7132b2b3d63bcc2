"""`Plan`: an ONNX graph after all constants and all shapes have been computed. This module does not import torch.

Its steps compute only values that depend on the images. Every step has the form of the newest operator set, whichever
set the file uses: axes, shapes and sizes are attributes, not inputs.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dfkd_core.interface import OutputForm, TeacherInterface

Array = NDArray[np.generic]
Shape = tuple[int, ...]


PASSING = ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze")  # operations that change no number


@dataclass(frozen=True, slots=True)
class Scaled:
    """A size that grows with the batch: `factor` times the number of images."""

    factor: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operation. An input is the name of an earlier output or of a constant; None is an omitted optional input."""

    op: str
    name: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]  # tuples may hold `Scaled` where a size grows with the batch


def _macs_of_gemm(step: Step, inputs: list[Shape], output: Shape) -> int:
    return math.prod(output) * inputs[0][-2 if step.attributes.get("flip_a") else -1]


def _macs_of_einsum(step: Step, inputs: list[Shape], output: Shape) -> int:
    terms = str(step.attributes["equation"]).partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=True):
        sizes |= zip(term, shape, strict=True)
    return math.prod(sizes.values()) if len(terms) > 1 else 0


def _macs_of_attention(step: Step, inputs: list[Shape], output: Shape) -> int:
    keys = inputs[1][-2]
    return math.prod(inputs[0]) * keys + math.prod(output) * keys


_MACS: dict[str, Callable[[Step, list[Shape], Shape], int]] = {
    "Conv": lambda step, inputs, output: math.prod(output) * math.prod(inputs[1][1:]),
    "ConvTranspose": lambda step, inputs, output: math.prod(inputs[0]) * math.prod(inputs[1][1:]),
    "Gemm": _macs_of_gemm,
    "MatMul": _macs_of_gemm,
    "Einsum": _macs_of_einsum,
    "Attention": _macs_of_attention,
}


def macs_of(step: Step, inputs: Sequence[Any], output: Any) -> Any:
    """Return the multiply-adds of one step, from the shapes of its inputs and of its first output.

    The sizes in the shapes may be of any type with sums and products. The result is 0 if the step is neither a
    convolution nor a matrix product.
    """
    count = _MACS.get(step.op)
    return 0 if count is None else count(step, list(inputs), output)


@dataclass(frozen=True, slots=True)
class Plan:
    """A classifier from images (N, C, H, W) to logits (N, num_classes), whatever the file takes and returns."""

    interface: TeacherInterface  # what the file takes and returns
    input_name: str  # the value that holds the images (N, C, H, W)
    output_name: str  # the value that holds the logits (N, num_classes)
    head: str  # the value of the file's graph from which the logits are made
    head_form: OutputForm  # what that value is: logits or probabilities
    input_shape: Shape  # (C, H, W)
    num_classes: int
    batch: Literal["dynamic", "fixed"]  # as the file declares it; a fixed batch is rewritten
    declared_batch: int | None
    opset: int
    steps: tuple[Step, ...]
    constants: Mapping[str, Array]
    learned: Mapping[str, int]  # stored float tensor → its elements, without BatchNormalization statistics
    shapes: Mapping[str, Shape]  # value → its shape for a batch of one image
    operators: Mapping[str, int]  # operator → how often it occurs in the file
    normalisations: tuple[str, ...]
    is_embedding: bool = False  # the output is scaled to length 1
    later_output: str | None = None  # another output of the graph, which layers with weights compute from this one
    head_is_reversed: bool = False  # the two classes come in the other order than in the head's value

    @property
    def parameters(self) -> int:
        """The number of learned parameters."""
        return sum(self.learned.values())

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and matrix products for one image."""
        return sum(self.macs_of(step) for step in self.steps)

    @property
    def activations(self) -> int:
        """Elements of all values that are computed for one image."""
        return sum(math.prod(self.shapes[name]) for step in self.steps for name in step.outputs if name in self.shapes)

    def macs_of(self, step: Step) -> int:
        """Return multiply-adds of one step for one image; 0 if it is neither a convolution nor a matrix product."""
        inputs = [self.shapes[name] if name else () for name in step.inputs]
        macs: int = macs_of(step, inputs, self.shapes[step.outputs[0]])
        return macs

    @property
    def ends_in_linear(self) -> bool:
        """Whether a linear layer with constant weights computes the logits; its input is then the feature vector."""
        makers = {name: step for step in self.steps for name in step.outputs}
        step = makers.get(self.output_name)
        while step is not None and step.op in PASSING:
            step = makers.get(str(step.inputs[0]))
        if step is not None and step.op == "Add":
            inner = [name for name in step.inputs if name not in self.constants]
            step = makers.get(str(inner[0])) if len(inner) == 1 else None
            return step is not None and step.op == "MatMul" and step.inputs[1] in self.constants
        return step is not None and step.op in ("Gemm", "MatMul") and step.inputs[1] in self.constants

    def consumers(self) -> Counter[str]:
        """Return how many steps use each value; being the output of the graph counts as one use."""
        return Counter([self.output_name, *(name for step in self.steps for name in step.inputs if name)])
