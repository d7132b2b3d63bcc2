"""Engine: in which precision and through which kernels a run's networks compute. The same code on every device.

A network keeps its fp32 weights, is called with fp32 and answers in fp32; only what happens inside differs. So losses,
labels, averages, checkpoints and exports know nothing of it, and a copy of a network is as plain as any other.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.errors import CompileUnavailable
from dfkd_core.spec.config import Compute

BACKEND = "inductor"
MOST_GRAPHS = 128  # compiled from one call: each network, mode and kind of gradient needs its own
NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs networks as `distillation.compute` says."""

    compute: Compute = field(default_factory=Compute)

    @property
    def plain(self) -> bool:
        """Whether networks are simply called."""
        return self.compute == Compute()

    @property
    def narrow(self) -> bool:
        """Whether convolutions and matrix products take bfloat16."""
        return self.compute.precision == "bf16"

    def __call__(self, network: nn.Module, *inputs: Tensor) -> Any:  # Any: what the network returns
        """`network(*inputs)`; float32 comes out, or a tuple of it."""
        if self.plain:
            return network(*inputs)
        # One autocast for each forward: its cache of narrow weights would outlive an optimiser step.
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=self.narrow):
            # A compiled forward would not see hooks that came after it.
            compiles = self.compute.compile and not is_watched(network)
            outputs = _compiled(BACKEND)(network, *_sized(inputs)) if compiles else network(*inputs)
        return tuple(map(to_float32, outputs)) if isinstance(outputs, tuple) else to_float32(outputs)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The same network, computed by this engine when it is called."""
        return network if self.plain else Computed(network, self)

    def to_channels_last(self, network: nn.Module, device: torch.device) -> None:
        """Put the weights into the order that convolutions are fastest in; their values stay.

        That is channels-last for bfloat16, and on a CPU: a ResNet's inversion and a generator take two
        thirds of the time.
        """
        if self.narrow or device.type == "cpu":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Computed(nn.Module):
    """A view of a network: the same modules, parameters and hooks, computed by an engine."""

    def __init__(self, network: nn.Module, engine: Engine) -> None:
        super().__init__()
        self.network = network
        self.engine = engine
        self.training = network.training

    def forward(self, *inputs: Tensor) -> Any:  # Any: what the network returns
        """What the network says."""
        return self.engine(self.network, *inputs)

    @property
    def classifier(self) -> nn.Module | None:
        """The network's, where it names one."""
        return getattr(self.network, "classifier", None)


def to_float32(tensor: Tensor) -> Tensor:
    """In float32 where it was narrower."""
    return tensor.float() if tensor.dtype in NARROW else tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device; towards CUDA the copy runs beside the computation."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def is_watched(network: nn.Module) -> bool:
    """Whether a hook waits for the forward of any of its modules."""
    return any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())


def _call(network: nn.Module, *inputs: Tensor) -> Any:  # Any: what the network returns
    return network(*inputs)


@functools.cache
def _compiled(backend: str) -> Callable[..., Any]:
    """`_call` compiled; the weights are inputs of the compiled code, so a network stays what it is."""
    return torch.compile(_call, backend=backend)


def _sized(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The inputs, marked as batches of any size: one compiled graph then serves all of them."""
    for images in inputs:
        torch._dynamo.maybe_mark_dynamic(images, 0)
    return inputs


@contextmanager
def engine_running(engine: Engine, *, device: torch.device) -> Iterator[None]:
    """The process's settings that go with an engine; CompileUnavailable where it cannot compile."""
    with _matrix_products(device, narrow=engine.narrow):
        if not engine.compute.compile:
            yield
            return
        check_compiler(device)
        with torch._dynamo.config.patch(recompile_limit=MOST_GRAPHS), warnings.catch_warnings():
            # The compiler looks at every tensor's gradient, and torch remarks on that.
            warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor that is not a leaf")
            yield


@contextmanager
def _matrix_products(device: torch.device, *, narrow: bool) -> Iterator[None]:
    """On CUDA what stays in float32 may use TF32 beside bfloat16 only: fp32 means fp32."""
    if device.type != "cuda":
        yield
        return
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if narrow else "highest")
    torch.backends.cudnn.allow_tf32 = narrow
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(precision)


def check_compiler(device: torch.device) -> None:
    """Compile something small for the device; CompileUnavailable where that fails."""
    try:
        if device.type == "cpu":
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()  # the trial below may come out of a cache
        torch.compile(_trial, backend=BACKEND)(torch.ones(64, device=device))
    except Exception as error:  # the compiler's own, of many kinds
        missing = "a C++ compiler (g++, or what CXX names)" if device.type == "cpu" else "Triton and a C compiler (gcc)"
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": ")
        raise CompileUnavailable(
            f"torch.compile does not work here for {device.type}: {reason}",
            hint=f"install {missing} where the worker runs, or leave distillation.compute.compile false",
            pointer="/distillation/compute/compile",
        ) from error


def _trial(values: Tensor) -> Tensor:
    return values.sin() + 1
