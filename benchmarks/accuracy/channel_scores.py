"""Compares ways to choose the teacher's channels from which a student starts: by magnitude, or by a score on images.

python -m benchmarks.accuracy.channel_scores mnist-lenet5 lenet5_half --scores magnitude elimination --set KEY=VALUE

The scores use procedural images from a random stream of their own; real test images are used only to measure. After the
choice of channels, a normal distillation follows. docs/measurements.md has the result.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.datasets import load_images
from benchmarks.pair import Pair, add_arguments, measure_seed
from benchmarks.teachers import RECIPES, accuracy
from dfkd_core.images.procedural import procedural_images
from dfkd_core.narrowing.choice import Mask, Score, Scores, magnitude
from dfkd_core.narrowing.groups import Channels
from dfkd_core.narrowing.units import Ids
from dfkd_core.rng import Streams
from dfkd_core.sandbox.process_tuning import ensure_tuned

IMAGES = 256
ELIMINATION_IMAGES = 128
DAMPING = 1e-3  # of second moments, as a share of their mean


def by_magnitude(_network: nn.Module, _images: Tensor, _generator: torch.Generator) -> Score:
    """Return the sum of the squares of all weights in and out, as the product does."""
    return magnitude


def random(_network: nn.Module, _images: Tensor, generator: torch.Generator) -> Score:
    """Return random scores, to see what a choice is worth at all."""
    return lambda channels, _group, _present: torch.rand(len(channels.group_of), generator=generator).double().numpy()


def activation(network: nn.Module, images: Tensor, _generator: torch.Generator) -> Score:
    """Return the variance of a channel times the squared norm of the weights that read it, over the reading layers."""
    loads = {}
    for layer, inputs in _inputs(network, images).items():
        spread = inputs.transpose(0, 1).flatten(1).var(dim=1)
        loads[layer] = spread * network.get_submodule(layer).weight.transpose(0, 1).flatten(1).square().sum(dim=1)

    def score(channels: Channels, group: int, _present: Mask) -> Scores:
        total = np.zeros(len(channels.group_of))
        for layer, members in _readers(channels, group):
            np.add.at(total, members, loads[layer].double().numpy())
        return total

    return score


def elimination(network: nn.Module, images: Tensor, _generator: torch.Generator) -> Score:
    """Remove channels one by one, each time the one that the remaining channels replace best by least squares.

    The optimal brain surgeon for whole channels, as in Kurtić, Frantar, Alistarh: *ZipLM*, NeurIPS 2023,
    https://arxiv.org/abs/2302.04089. The fitted weights only decide the order and are not used otherwise.
    """
    moments = {}
    for layer, inputs in _inputs(network, images[:ELIMINATION_IMAGES]).items():
        columns = _columns(network.get_submodule(layer), inputs)
        moments[layer] = (columns - columns.mean(dim=0)).T.cov(correction=0).double()

    def score(channels: Channels, group: int, _present: Mask) -> Scores:
        members = channels.groups[group].cells.ravel().tolist()
        readers = [
            _Reader(network.get_submodule(layer), moments[layer], [members.index(one) for one in read.tolist()])
            for layer, read in _readers(channels, group)
        ]
        total = np.zeros(len(channels.group_of))
        total[members] = _elimination_order(len(members), readers)
        return total

    return score


def _elimination_order(count: int, readers: "list[_Reader]") -> Scores:
    order: list[int] = []
    while len(order) < count:
        left = [channel for channel in range(count) if channel not in order]
        order.append(min(left, key=lambda channel: sum(reader.cost(channel) for reader in readers)))
        for reader in readers:
            reader.remove(order[-1])
    return np.argsort(order).astype(np.float64)


class _Reader:
    """A layer that loses inputs while the weights of the remaining inputs are adjusted to compensate."""

    def __init__(self, layer: nn.Module, moments: Tensor, channels: list[int]) -> None:
        self._weight = layer.weight.detach().flatten(1).T.double()  # (columns, outputs)
        self._size = (self._weight * (moments @ self._weight)).sum()
        self._inverse = torch.linalg.inv(moments + DAMPING * moments.diagonal().mean() * torch.eye(len(moments)))
        width = len(self._weight) // layer.weight.shape[1]  # of the kernel
        self._columns: list[list[int]] = [[] for _ in range(1 + max(channels))]
        for place, channel in enumerate(channels):
            self._columns[channel] += range(place * width, (place + 1) * width)

    def cost(self, channel: int) -> float:
        """Return the error of the outputs, relative to their variance, when the other channels replace this one."""
        gone = self._columns[channel]
        weight = self._weight[gone]
        return float((weight * torch.linalg.solve(self._inverse[gone][:, gone], weight)).sum() / self._size)

    def remove(self, channel: int) -> None:
        """Remove a channel and adjust the weights of the others."""
        gone = self._columns[channel]
        share = torch.linalg.solve(self._inverse[gone][:, gone], self._inverse[gone])  # (gone, columns)
        self._weight = self._weight - share.T @ self._weight[gone]
        self._inverse = self._inverse - self._inverse[:, gone] @ share
        self._weight[gone] = 0
        self._inverse[gone], self._inverse[:, gone] = 0, 0


def _readers(channels: Channels, group: int) -> Iterator[tuple[str, Ids]]:
    """Yield the layers that read a group: name, and the member that each input of the layer belongs to."""
    for use in channels.uses:
        if use.role == "in" and (channels.group_of[use.ids] == group).all():
            yield channels.plan.steps[use.step].name, use.ids


@torch.no_grad()
def _inputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _module, inputs, name=name: found.update({name: inputs[0]}))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    network(images)
    for handle in handles:
        handle.remove()
    return found


def _columns(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return the values of which each output is a weighted sum: (N * positions, inputs * kernel)."""
    if isinstance(layer, nn.Conv2d):
        patches = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        return patches.transpose(1, 2).flatten(0, 1)
    return inputs


SCORES = {"magnitude": by_magnitude, "random": random, "activation": activation, "elimination": elimination}


def measure(pair: Pair, name: str, seed: int) -> None:
    """Print the accuracy on real images right after the cut, during the run, and of the published student."""
    teacher, streams = pair.load(), Streams(seed)
    space = teacher.input_space
    images = torch.lerp(*space.bounds(), procedural_images(space.shape, IMAGES, generator=streams["score"]))
    started = time.perf_counter()
    score = SCORES[name](teacher.network, images, streams["score-draws"])
    student = pair.student_of(teacher, seed, score=score)
    seconds = time.perf_counter() - started
    cut = accuracy(student.network.eval(), load_images(RECIPES[pair.teacher].dataset, "test"))
    result = measure_seed(pair, seed, score=score)
    print(f"{name}, seed {seed}: {cut:.2f} % after {seconds:.1f} s, published {result['published_accuracy']:.2f} %")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", choices=list(RECIPES))
    parser.add_argument("student")
    parser.add_argument("--scores", nargs="+", choices=list(SCORES), default=list(SCORES))
    add_arguments(parser)
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    pair = Pair(arguments.teacher, arguments.student, arguments.set)
    for seed in arguments.seeds:
        for name in arguments.scores:
            measure(pair, name, seed)


if __name__ == "__main__":
    main()
