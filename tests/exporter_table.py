"""PyTorch's table of ONNX operators, built once in a process; each export would build it anew, in half a second."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache

import pytest


@contextmanager
def exporter_table_kept() -> Iterator[None]:
    """Give each export of this process a copy of the same table."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    build = cache(ONNXRegistry.from_torchlib)

    def copied(**options: int) -> ONNXRegistry:
        registry = copy(build(**options))
        registry.functions = {target: list(found) for target, found in registry.functions.items()}
        return registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(copied))
        yield
