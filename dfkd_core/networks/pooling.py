"""Max pooling that is fast on a CPU: torch's kernel takes longer than the convolution before it in a LeNet."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MaxPool2d(nn.MaxPool2d):
    """Computes what nn.MaxPool2d computes, (N, C, H, W) to (N, C, H', W'), faster on a CPU if no gradient is needed."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the largest value of each window."""
        return max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, ceil_mode=self.ceil_mode)


def max_pool2d(
    x: Tensor,
    kernel: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    ceil_mode: bool = False,
) -> Tensor:
    """Compute F.max_pool2d; a 2 × 2 window with stride 2 is computed from four strided views where that is faster."""
    window = _pair(kernel), _pair(stride), _pair(padding), _pair(dilation)
    halving = window == ((2, 2), (2, 2), (0, 0), (1, 1)) and x.shape[-2] % 2 == x.shape[-1] % 2 == 0
    if not halving or _traced_or_differentiated(x) or x.device.type != "cpu":
        return torch.max_pool2d(x, *window, ceil_mode)
    rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


def _pair(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _traced_or_differentiated(x: Tensor) -> bool:
    return torch.compiler.is_compiling() or (torch.is_grad_enabled() and x.requires_grad)
