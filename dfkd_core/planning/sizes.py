"""Sizes: what one image costs in a network. Those of generators, encoders and decoders follow from their options."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from dfkd_core.architectures.layers import BatchNorm, Chain, Conv, NetworkDescription, Residual, Sequential
from dfkd_core.options.passes import Network
from dfkd_core.spec.config import DistillConfig

FLOAT_BYTES = 4
IN_MEMORY_BYTES = 192 * 2**20  # the largest bank of images that is kept in memory; a larger one lies in a file
BANK_BYTES = 128 * 2**20  # most of one bank of procedural images, with their logits
LARGE_PLACES = 4096  # procedural images that are kept whatever their size; a bank of large ones lies in a file
NORMALISED_FROM = 5  # convolutions from which on a student without normalisation gets temporary BatchNorms


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """The cost of one image in a network, forward only, and what does not depend on the images."""

    macs: int  # multiply-adds of convolutions and matrix products
    activation_bytes: int  # of all that is computed, in fp32
    parameters: int
    operations: int  # layers, each of which is one call of a kernel

    def scaled(self, width: float) -> "NetworkSize":
        """Return the size of the same network with `width` times the channels everywhere, by its order of growth."""
        return replace(
            self,
            macs=round(self.macs * width**2),
            activation_bytes=round(self.activation_bytes * width),
            parameters=round(self.parameters * width**2),
        )


def size_of_description(description: NetworkDescription) -> NetworkSize:
    """Return the size of a network of the catalogue."""
    return NetworkSize(
        macs=description.macs,
        activation_bytes=FLOAT_BYTES * description.activations,
        parameters=description.parameters,
        operations=_layers(description.layers),
    )


def procedural_places(capacity: int, *, pixels: int, num_classes: int) -> int:
    """Return the most images that a bank of procedural images keeps. `pixels` is the number of values in an image."""
    place_bytes = pixels + 2 * num_classes
    return max(1, min(capacity, max(LARGE_PLACES, BANK_BYTES // place_bytes)))


def is_normalised(description: NetworkDescription, *, renormalise: bool) -> bool:
    """Return whether a student of the catalogue is trained with BatchNorms, its own or temporary ones."""
    own = _count(description.layers, BatchNorm)
    return own > 0 or (renormalise and _count(description.layers, Conv) >= NORMALISED_FROM)


def sizes_of(config: DistillConfig, shape: tuple[int, int, int]) -> dict[Network, NetworkSize]:
    """Return the sizes of the networks that method and memory bring, for images of `shape`."""
    found = {}
    method, memory = config.method_options, config.memory_options
    if hasattr(method, "latent_dim") and hasattr(method, "width"):
        found[Network.GENERATOR] = generator_size(shape, latent_dim=method.latent_dim, width=method.width)
    if hasattr(memory, "latent_dim") and hasattr(memory, "width"):
        found[Network.DECODER] = generator_size(shape, latent_dim=memory.latent_dim, width=memory.width)
        sized = published_encoder_size if getattr(memory, "encoder", None) == "published" else encoder_size
        found[Network.ENCODER] = sized(shape, latent_dim=memory.latent_dim, width=memory.width)
    return found


def generator_size(shape: tuple[int, int, int], *, latent_dim: int, width: int) -> NetworkSize:
    """Return the size of `networks.generators.Generator`."""
    channels, height, breadth = shape
    base, full = math.ceil(height / 4) * math.ceil(breadth / 4), height * breadth
    maps = [(2 * width, 2 * width, 4 * base), (2 * width, width, full), (width, channels, full)]  # in, out, places
    convolved = sum(9 * before * after * places for before, after, places in maps)
    values = 2 * width * base * 2  # projected and normalised
    values += sum(before * places + 3 * after * places for before, after, places in maps)  # enlarged; 3 of each layer
    weights = latent_dim * 2 * width * base + sum(9 * before * after for before, after, _ in maps)
    return NetworkSize(
        macs=latent_dim * 2 * width * base + convolved,
        activation_bytes=FLOAT_BYTES * values,
        parameters=weights,
        operations=14,
    )


def encoder_size(shape: tuple[int, int, int], *, latent_dim: int, width: int) -> NetworkSize:
    """Return the size of `networks.generators.Encoder` with strides."""
    sides = [shape[1:]]
    for _ in range(3):
        sides.append((math.ceil(sides[-1][0] / 2), math.ceil(sides[-1][1] / 2)))
    places = [math.prod(side) for side in sides]
    channels = (shape[0], width, 2 * width, 2 * width)
    layers = list(zip(pairwise(channels), places[1:], strict=True))
    flat = 2 * width * places[-1]
    return NetworkSize(
        macs=sum(9 * before * after * place for (before, after), place in layers) + 2 * flat * latent_dim,
        activation_bytes=FLOAT_BYTES * sum(3 * after * place for (_, after), place in layers),
        parameters=sum(9 * before * after for (before, after), _ in layers) + 2 * flat * latent_dim,
        operations=11,
    )


def published_encoder_size(shape: tuple[int, int, int], *, latent_dim: int, width: int) -> NetworkSize:
    """Return the size of `networks.generators.Encoder` as published: its first two convolutions see every pixel."""
    channels, *sides = shape
    full = math.prod(sides)
    halved = [max(1, side // 2) for side in sides]
    strided = [math.ceil(side / 2) for side in halved]
    last = math.prod(max(1, side // 2) for side in strided)
    layers = [(channels, width, full), (width, 2 * width, full), (2 * width, 2 * width, math.prod(strided))]
    flat = 2 * width * last
    values = channels * full + 3 * width * full + 3 * 2 * width * full  # scaled columns; 3 of each layer
    values += 2 * width * math.prod(halved) + 2 * 2 * width * math.prod(strided) + flat
    return NetworkSize(
        macs=sum(9 * before * after * place for before, after, place in layers) + 2 * flat * latent_dim,
        activation_bytes=FLOAT_BYTES * values,
        parameters=sum(9 * before * after for before, after, _ in layers) + 2 * flat * latent_dim,
        operations=14,
    )


def _layers(chain: Chain) -> int:
    return sum(_inner(layer) for _, layer in chain)


def _inner(layer: object) -> int:
    if isinstance(layer, Sequential):
        return _layers(layer.chain)
    if isinstance(layer, Residual):
        return 1 + _layers(layer.before + layer.body + layer.shortcut + layer.after)
    return 1


def _count(chain: Chain, kind: type) -> int:
    total = 0
    for _, layer in chain:
        if isinstance(layer, Sequential):
            total += _count(layer.chain, kind)
        elif isinstance(layer, Residual):
            total += _count(layer.before + layer.body + layer.shortcut + layer.after, kind)
        else:
            total += isinstance(layer, kind)
    return total
