"""A copy of the user's network for the export: eval mode, CPU, float32. The network itself is never changed."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dfkd_core.errors import TeacherInvalid

_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",  # of torch.compile
}
"""Classes of PyTorch around a network, and the attribute that holds it."""


def copied(network: nn.Module) -> nn.Module:
    """Return a copy of the network without wrappers for several devices or compilation, in eval mode.

    Each tensor is copied to the CPU as it is, and floating-point ones become float32, so a GPU needs no room for it.

    Raises:
        TeacherInvalid: the network cannot be copied, or its weights are not there.
    """
    while (inner := _WRAPPERS.get(type(network).__name__)) and isinstance(getattr(network, inner, None), nn.Module):
        network = getattr(network, inner)
    memo = {id(tensor): _on_cpu(tensor) for tensor in _tensors(network)}
    try:
        with torch.no_grad():  # TorchScript copies its tensors with their history otherwise
            twin = copy.deepcopy(network, memo)
    except Exception as error:  # the network's own classes decide what goes wrong
        raise TeacherInvalid(
            f"the network cannot be copied ({type(error).__name__}: {error})",
            hint="Give the torch.nn.Module inside it, or name its code: dfkd submit module:Net --weights weights.pt.",
        ) from error
    return twin.eval().cpu().float()


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    """Yield parameters, buffers, and tensors that are plain attributes of modules, as with `weight_norm`."""
    for module in network.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            yield from (value for value in held.values() if isinstance(value, Tensor))


def _on_cpu(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU, as a parameter if `tensor` is one.

    Raises:
        TeacherInvalid: the tensor has no data.
    """
    if tensor.is_meta or is_lazy(tensor):
        raise TeacherInvalid(
            "the network has weights without data (lazy, or on the meta device)",
            hint="Load its weights, or run it once, before it is exported.",
        )
    dtype = torch.float32 if tensor.is_floating_point() and not tensor.is_quantized else tensor.dtype
    made = tensor.detach().to("cpu", dtype, copy=True)
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compute on the CPU in float32 with gradients, whatever the caller has set, and leave its random numbers alone."""
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.is_autocast_enabled("cpu"):
            stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        stack.callback(torch.set_default_dtype, dtype)
        yield
