"""The tries of bfloat16: updates of a student in both precisions, one after the other."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dfkd_core.calibration import precision
from dfkd_core.planning.precision_choice import TRIES

CPU = torch.device("cpu")


def test_each_try_compares_updates_in_both_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    seconds = iter([4.0, 2.0, 3.0, 2.0, 1.0, 2.0])
    network = precision._network()
    network[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))

    def timed(update: Callable[[], object], _device: torch.device) -> float:
        update()
        return next(seconds)

    monkeypatch.setattr(precision, "_network", lambda: network)
    monkeypatch.setattr(precision, "seconds_of", timed)
    assert precision.bf16_tries(CPU) == (2.0, 1.5, 0.5)
    assert seen == TRIES * [torch.float32, torch.bfloat16]


def test_an_update_gives_every_weight_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[object] = []

    def untimed(update: Callable[[], object], _device: torch.device) -> float:
        found.append(update())
        return 1.0

    monkeypatch.setattr(precision, "seconds_of", untimed)
    network = precision._network()
    precision._seconds(network, torch.randn(4, 3, 32, 32), precision="bf16")
    assert [tensor.shape for tensor in found[0]] == [weight.shape for weight in network.parameters()]  # type: ignore[attr-defined]
    assert isinstance(network[0], nn.Conv2d)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
