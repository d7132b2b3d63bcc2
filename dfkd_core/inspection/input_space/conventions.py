"""The usual conventions for pixel values: what training scripts subtract, and what they divide by."""

from dataclasses import dataclass
from itertools import chain
from typing import Any

from dfkd_core.input_estimate import Basis, Certainty, InputEstimate, ToldPixels
from dfkd_core.spec.teacher import InputSpec

Bounds = tuple[tuple[float, ...], tuple[float, ...]]  # lowest and highest value of each channel

TOLD = "told"  # name of what is said without a name
ALIKE = 0.15
"""Two conventions are alike if no bound of a channel differs by more than this share of the larger span."""


@dataclass(frozen=True, slots=True)
class Convention:
    """Pixels within `range`, of which `mean` is subtracted and which are divided by `std`."""

    name: str
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = None  # one for each channel, or one for all
    std: tuple[float, ...] | None = None

    @classmethod
    def of(cls, pixels: InputSpec | InputEstimate | ToldPixels) -> "Convention":
        """Return what is said of the pixels of a file that does not take whole numbers, by a caller or an estimate."""
        mean, std = (None if values is None else tuple(values) for values in (pixels.mean, pixels.std))
        low, high = pixels.range or (0.0, 1.0)
        return cls(TOLD, (low, high), mean, std)

    def values(self) -> dict[str, Any]:
        """Return mean, std and range as an estimate states them."""
        mean, std = (None if values is None else list(values) for values in (self.mean, self.std))
        return {"mean": mean, "std": std, "range": list(self.range)}

    def bounds(self, channels: int) -> Bounds:
        """Return the values of a pixel with the lowest and with the highest value of the range, for each channel."""
        mean, std = (
            values * channels if len(values) == 1 else values for values in (self.mean or (0.0,), self.std or (1.0,))
        )
        low, high = (
            tuple((bound - centre) / spread for centre, spread in zip(mean, std, strict=True)) for bound in self.range
        )
        return low, high

    def fits(self, channels: int) -> bool:
        """Return whether the convention says something about images of that many channels."""
        return all(values is None or len(values) in (1, channels) for values in (self.mean, self.std))


ZERO_ONE = Convention("zero-one")
MINUS_ONE_ONE = Convention("minus-one-one", mean=(0.5,), std=(0.5,))
BYTES = Convention("bytes", (0.0, 255.0))
EVERYWHERE = (ZERO_ONE, MINUS_ONE_ONE, BYTES)
WIDE = Convention("wide", (-3.0, 3.0))
"""The values of most conventions, MNIST's among them, lie within it. It is assumed only, never found."""

GREY = (
    Convention("mnist", mean=(0.1307,), std=(0.3081,)),
    Convention("fashion-mnist", mean=(0.2860,), std=(0.3530,)),
)
IMAGENET = Convention("imagenet", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
COLOUR = (
    IMAGENET,
    Convention("cifar10", mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    Convention("cifar10-narrow", mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
    Convention("cifar100", mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
    Convention("clip", mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
    Convention("caffe", (0.0, 255.0), mean=(103.939, 116.779, 123.68), std=(1.0,)),
)


def conventions(channels: int) -> tuple[Convention, ...]:
    """Return the conventions for images of that many channels."""
    return (*EVERYWHERE, *(GREY if channels == 1 else COLOUR if channels == 3 else ()))


def are_alike(one: Convention, other: Convention, channels: int) -> bool:
    """Return whether both give pixels nearly the same values."""
    (low, high), (other_low, other_high) = one.bounds(channels), other.bounds(channels)
    both = zip(low, high, other_low, other_high, strict=True)
    spans = [max(here - first, there - second) for first, here, second, there in both]
    apart = chain(zip(low, other_low, spans, strict=True), zip(high, other_high, spans, strict=True))
    return all(abs(here - there) <= ALIKE * span for here, there, span in apart)


def without_evidence(channels: int) -> InputEstimate:
    """Return the estimate for a file that does not tell anything."""
    return described(usual(channels), "unknown", "default")


def usual(channels: int) -> Convention:
    """Return the convention that is assumed where nothing tells it."""
    return IMAGENET if channels == 3 else WIDE


def described(found: Convention, certainty: Certainty, basis: Basis) -> InputEstimate:
    """Return the estimate that names a convention."""
    return InputEstimate(convention=found.name, certainty=certainty, basis=basis, **found.values())
