"""Translate steps with weights into PyTorch modules, so that hooks, pruning and counting can find them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from dfkd_core.onnx_import.ir.plan import Array, Plan, Step


class BatchNormOfOne(nn.BatchNorm2d):
    """BatchNorm2d whose gradient is right for a batch of one image too.

    PyTorch 2.13 on a CPU takes the maps and the gradient of one image to lie in memory in the same order. Behind a
    reshape to (1, H W, C), which attention makes, they do not, and the gradient is then that of other channels.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise the maps (N, C, H, W)."""
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if tracing or torch.compiler.is_exporting() or len(maps) != 1:
            return super().forward(maps)
        outputs: Tensor = super().forward(maps.contiguous())
        if outputs.requires_grad:
            outputs.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
        return outputs


def tensor_of(array: Array) -> Tensor:
    """Return a copy of the array as a tensor."""
    return torch.tensor(array)


def module_of(plan: Plan, step: Step, bias: Array | None = None) -> nn.Module | None:
    """Return the module of a step whose weights are constants, or None if the step remains a function.

    `bias` is the constant vector that a following Add adds to a matrix product.
    """
    build = _BUILDERS.get(step.op)
    if build is None or any(name is not None and name not in plan.constants for name in step.inputs[1:]):
        return None
    weights = [None if name is None else plan.constants[name] for name in step.inputs[1:]]
    return build(step, [*weights, *([bias] if bias is not None else [])], len(plan.shapes[str(step.inputs[0])]))


def _fill(parameter: Tensor | None, values: Array) -> None:
    assert parameter is not None
    with torch.no_grad():
        parameter.copy_(tensor_of(values))


def _conv(step: Step, weights: list[Array | None], rank: int) -> nn.Module:
    kernel = weights[0]
    assert kernel is not None
    bias = weights[1] if len(weights) > 1 else None
    attributes, group = step.attributes, int(step.attributes["group"])
    pads = attributes["pads"]
    even = all(before == after for before, after in pads)
    kind = nn.Conv2d if rank == 4 else nn.Conv1d
    conv = kind(
        kernel.shape[1] * group,
        kernel.shape[0],
        tuple(attributes["kernel"]),
        stride=tuple(attributes["strides"]),
        padding=tuple(before for before, _ in pads) if even else 0,
        dilation=tuple(attributes["dilations"]),
        groups=group,
        bias=bias is not None,
    )
    _fill(conv.weight, kernel)
    if bias is not None:
        _fill(conv.bias, bias)
    if even:
        return conv
    border = tuple(size for pair in reversed(pads) for size in pair)
    return nn.Sequential((nn.ZeroPad2d if rank == 4 else nn.ZeroPad1d)(border), conv)


def _conv_transpose(step: Step, weights: list[Array | None], rank: int) -> nn.Module:
    kernel = weights[0]
    assert kernel is not None
    bias = weights[1] if len(weights) > 1 else None
    attributes, group = step.attributes, int(step.attributes["group"])
    pads = [min(pair) for pair in attributes["pads"]]
    conv = nn.ConvTranspose2d(
        kernel.shape[0],
        kernel.shape[1] * group,
        tuple(attributes["kernel"]),
        stride=tuple(attributes["strides"]),
        padding=tuple(pads),
        output_padding=tuple(attributes["extra"]),
        dilation=tuple(attributes["dilations"]),
        groups=group,
        bias=bias is not None,
    )
    _fill(conv.weight, kernel)
    if bias is not None:
        _fill(conv.bias, bias)
    if all(before == after for before, after in attributes["pads"]):
        return conv
    (top, bottom), (left, right) = attributes["pads"]
    rows, columns = pads
    return nn.Sequential(conv, nn.ZeroPad2d((columns - left, columns - right, rows - top, rows - bottom)))


def _linear(step: Step, weights: list[Array | None], rank: int) -> nn.Module | None:
    """Return the module of a product with a constant matrix. Gemm's alpha and beta are multiplied into its weights."""
    matrix = weights[0]
    attributes = step.attributes
    if matrix is None or matrix.ndim != 2 or attributes.get("flip_a"):
        return None
    if step.op == "MatMul" or not attributes["flip_b"]:
        matrix = matrix.T
    bias = weights[1] if len(weights) > 1 else None
    if bias is not None and bias.size not in (1, matrix.shape[0]):
        return None
    linear = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None)
    _fill(linear.weight, attributes.get("alpha", 1.0) * matrix)
    if bias is not None:
        _fill(linear.bias, attributes.get("beta", 1.0) * bias.reshape(-1))
    return linear


def _batchnorm(step: Step, weights: list[Array | None], rank: int) -> nn.Module:
    scale, bias, mean, variance = weights[:4]
    assert scale is not None
    assert bias is not None
    assert mean is not None
    assert variance is not None
    kind = BatchNormOfOne if rank == 4 else nn.BatchNorm1d
    norm = kind(len(scale), eps=step.attributes["epsilon"])
    for target, values in (
        (norm.weight, scale),
        (norm.bias, bias),
        (norm.running_mean, mean),
        (norm.running_var, variance),
    ):
        _fill(target, values)
    return norm.eval()


def _layer_norm(step: Step, weights: list[Array | None], rank: int) -> nn.Module | None:
    scale = weights[0]
    bias = weights[1] if len(weights) > 1 else None
    if scale is None or scale.ndim != rank - step.attributes["axis"]:
        return None
    if bias is not None and bias.shape != scale.shape:
        return None
    norm = nn.LayerNorm(list(scale.shape), eps=step.attributes["epsilon"], bias=bias is not None)
    _fill(norm.weight, scale)
    if bias is not None:
        _fill(norm.bias, bias)
    return norm


def _group_norm(step: Step, weights: list[Array | None], rank: int) -> nn.Module:
    scale, bias = weights[:2]
    assert scale is not None
    assert bias is not None
    groups, channels = step.attributes["groups"], step.attributes["channels"]
    if len(scale) != channels:  # opset 18 has one value per group
        scale, bias = (np.repeat(values, channels // groups) for values in (scale, bias))
    norm = nn.GroupNorm(groups, channels, eps=step.attributes["epsilon"])
    _fill(norm.weight, scale)
    _fill(norm.bias, bias)
    return norm


_BUILDERS: dict[str, Callable[[Step, list[Array | None], int], nn.Module | None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _linear,
    "MatMul": _linear,
    "BatchNormalization": _batchnorm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
}
