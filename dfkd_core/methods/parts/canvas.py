"""Canvas: the unknowns behind one batch of images. Pixels themselves, or codes and the weights of a generator."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.images.procedural import procedural_images
from dfkd_core.networks.generators import Generator
from dfkd_core.networks.precision import Engine
from dfkd_core.networks.teacher import InputSpace
from dfkd_core.options.images import PixelOptions, RedrawnOptions


class Canvas(ABC):
    """What an optimiser changes, and the images that follow from it."""

    @property
    @abstractmethod
    def unknowns(self) -> list[tuple[list[Tensor], float]]:
        """Groups of leaves, each with its learning rate."""

    @abstractmethod
    def images(self) -> Tensor:
        """Images (N, C, H, W), differentiable with respect to the unknowns."""

    def project(self) -> None:
        """Put the unknowns back to where they may be; called after every step."""
        return


class PixelCanvas(Canvas):
    """The pixels of `options.batch_size` images."""

    def __init__(
        self, options: PixelOptions, space: InputSpace, *, generator: torch.Generator, device: torch.device
    ) -> None:
        self._options = options
        self._low, self._high = (bound.to(device) for bound in space.bounds())
        shape = (options.batch_size, *space.shape)
        if options.start == "normal":
            start = torch.randn(shape, generator=generator).to(device)
        else:
            start = torch.lerp(self._low, self._high, self._levels(shape, generator).to(device))
        self.pixels = start.requires_grad_()

    def _levels(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
        if self._options.start == "shapes":
            return procedural_images(shape[1:], shape[0], generator=generator)
        return smooth_noise(shape, self._options.start_scale, generator=generator)

    @property
    def unknowns(self) -> list[tuple[list[Tensor], float]]:
        return [([self.pixels], self._options.learning_rate)]

    def images(self) -> Tensor:
        return self.pixels

    @torch.no_grad()
    def project(self) -> None:
        if self._options.valid_range:
            torch.clamp(self.pixels, self._low, self._high, out=self.pixels)


class RedrawnCanvas(Canvas):
    """A generator with random weights and one code for each image."""

    def __init__(
        self,
        options: RedrawnOptions,
        space: InputSpace,
        *,
        engine: Engine,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self._options = options
        self._engine = engine
        self.network = redrawn_generator(options, space, generator=generator).to(device)
        codes = torch.randn((options.batch_size, options.latent_dim), generator=generator)
        self.codes = codes.to(device).requires_grad_()

    @property
    def unknowns(self) -> list[tuple[list[Tensor], float]]:
        options = self._options
        return [(list(self.network.parameters()), options.learning_rate), ([self.codes], options.code_learning_rate)]

    def images(self) -> Tensor:
        images: Tensor = self._engine(self.network.train(), self.codes)
        return images


def redrawn_generator(options: RedrawnOptions, space: InputSpace, *, generator: torch.Generator) -> Generator:
    """A generator of codes (N, latent_dim) with weights from `generator`."""
    return Generator(
        space,
        latent_dim=options.latent_dim,
        width=options.width,
        batchnorm_eps=options.batchnorm_eps,
        spectral_norm=False,
        output=options.output,
        generator=generator,
    )


def smooth_noise(shape: tuple[int, int, int, int], scale: int, *, generator: torch.Generator) -> Tensor:
    """Values in [0, 1], (N, C, H, W): uniform on a grid of `scale` pixels, linear in between."""
    count, channels, height, breadth = shape
    grid = (count, channels, -(-height // scale), -(-breadth // scale))
    coarse = torch.rand(grid, generator=generator)
    return F.interpolate(coarse, size=(height, breadth), mode="bilinear", align_corners=False)


def shifted(images: Tensor, most: int, *, generator: torch.Generator) -> Tensor:
    """All images moved by one random offset of at most `most` pixels; edges are repeated."""
    if not most:
        return images
    height, breadth = images.shape[2:]
    down, across = torch.randint(2 * most + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (most, most, most, most), mode="replicate")
    return padded[:, :, down : down + height, across : across + breadth]


def adam_over(unknowns: list[tuple[list[Tensor], float]], betas: list[float]) -> torch.optim.Adam:
    """Adam over groups of unknowns; every group remembers its own learning rate as "full"."""
    first, second = betas
    groups = [{"params": group, "lr": rate, "full": rate} for group, rate in unknowns]
    return torch.optim.Adam(groups, betas=(first, second))


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's learning rate to `factor` times its full one."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["full"]
