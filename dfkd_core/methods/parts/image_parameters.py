"""ImageParameters: what is optimised behind one batch of images: pixels, or a generator's weights and latent codes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.networks.generators import Generator
from dfkd_core.networks.precision import Engine

Group = tuple[list[Tensor], float]
"""Leaves, and the learning rate they share."""


class ImageParameters(ABC):
    """The leaves that an optimiser changes, and the images that are computed from the leaves."""

    @property
    @abstractmethod
    def groups(self) -> list[Group]:
        """The leaves in groups."""

    @property
    def networks(self) -> list[nn.Module]:
        """The networks that compute the images."""
        return []

    @property
    def begins_coarse(self) -> bool:
        """True if the images are optimised at half their height and width first, and enlarged then."""
        return False

    @property
    def is_coarse(self) -> bool:
        """True as long as the images have half their height and width."""
        return False

    def enlarged(self) -> "ImageParameters":
        """Return parameters of the same images in full size. Callers ask `is_coarse` first."""
        return self

    @abstractmethod
    def images(self) -> Tensor:
        """Return images (N, C, H, W), differentiable with respect to the leaves."""

    def project(self) -> None:
        """Project the leaves back onto their valid values. The method calls it after each step."""
        return

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the leaves, and what else changes from step to step."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Give the leaves the values of an earlier `state`, in place."""


class PixelParameters(ImageParameters):
    """The pixels of a batch, (N, C, H, W).

    `bounds` are lowest and highest values, (1, C, 1, 1) each. `full` is the size (H, W) to which images are enlarged
    that begin with half of it; None for images that begin in it.
    """

    def __init__(
        self,
        start: Tensor,
        *,
        learning_rate: float,
        bounds: tuple[Tensor, Tensor] | None,
        full: tuple[int, int] | None = None,
    ) -> None:
        self.pixels = start.requires_grad_()
        self._learning_rate = learning_rate
        self._bounds = bounds
        self._full = full

    @property
    def groups(self) -> list[Group]:
        return [([self.pixels], self._learning_rate)]

    @property
    def begins_coarse(self) -> bool:
        return self._full is not None

    @property
    def is_coarse(self) -> bool:
        return self._full is not None and tuple(self.pixels.shape[2:]) != self._full

    def enlarged(self) -> "PixelParameters":
        assert self._full is not None  # images without it are not coarse
        pixels = resized(self.pixels.detach(), self._full)
        return PixelParameters(pixels, learning_rate=self._learning_rate, bounds=self._bounds, full=self._full)

    def images(self) -> Tensor:
        return self.pixels

    @torch.no_grad()
    def project(self) -> None:
        if self._bounds is not None:
            low, high = self._bounds
            torch.clamp(self.pixels, low, high, out=self.pixels)

    def state(self) -> dict[str, Any]:
        return {"pixels": self.pixels.detach()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        self.pixels.copy_(state["pixels"])


class GeneratorParameters(ImageParameters):
    """The weights of a generator, and one code (latent_dim,) for each image."""

    def __init__(
        self, network: Generator, codes: Tensor, *, engine: Engine, learning_rate: float, code_learning_rate: float
    ) -> None:
        self.network = network
        self.codes = codes.requires_grad_()  # (N, latent_dim)
        self._engine = engine
        self._learning_rate, self._code_learning_rate = learning_rate, code_learning_rate

    @property
    def groups(self) -> list[Group]:
        return [(list(self.network.parameters()), self._learning_rate), ([self.codes], self._code_learning_rate)]

    @property
    def networks(self) -> list[nn.Module]:
        return [self.network]

    def images(self) -> Tensor:
        images: Tensor = self._engine(self.network.train(), self.codes)
        return images

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "codes": self.codes.detach()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.codes.copy_(state["codes"])


def resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return images (N, C, H, W) in another size, linear in between, and averaged where they shrink."""
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def adam_over(groups: list[Group], betas: list[float]) -> torch.optim.Adam:
    """Build Adam over groups of leaves; each group stores its own learning rate as "full"."""
    first, second = betas
    parameters = [{"params": leaves, "lr": rate, "full": rate} for leaves, rate in groups]
    return torch.optim.Adam(parameters, betas=(first, second))


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times its full one."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["full"]
