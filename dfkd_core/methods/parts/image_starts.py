"""Starts: where the optimisation of a batch of images begins. Each start makes the ImageParameters of a new batch."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.images.procedural import procedural_images
from dfkd_core.methods.parts.image_parameters import GeneratorParameters, ImageParameters, PixelParameters, resized
from dfkd_core.methods.parts.part import Part
from dfkd_core.networks.generators import Generator
from dfkd_core.networks.teacher import InputSpace, Teacher
from dfkd_core.options.images import PixelOptions, RedrawnOptions, halved


class Start(Part):
    """Makes the parameters of each new batch."""

    @abstractmethod
    def begin(self, targets: Tensor) -> ImageParameters:
        """Return the parameters of a new batch with targets (N, num_classes)."""

    def resume(self, targets: Tensor, state: Mapping[str, Any]) -> ImageParameters:
        """Return parameters with the `state` of earlier ones, which had these targets."""
        parameters = self.begin(targets)
        parameters.restore(state)
        return parameters


class PixelStart(Start):
    """Pixels that start as normal noise, smooth noise or procedural images, as `options.start` says.

    `coarse`: the images begin with half their height and width.
    """

    def __init__(
        self,
        options: PixelOptions,
        space: InputSpace,
        *,
        draws: torch.Generator,
        device: torch.device,
        coarse: bool = False,
    ) -> None:
        self._options = options
        self._shape = space.shape
        self._low, self._high = (bound.to(device) for bound in space.bounds())
        self._draws = draws
        self._device = device
        self._coarse = coarse

    def begin(self, targets: Tensor) -> ImageParameters:
        start = self._pixels(len(targets))
        return self._parameters(resized(start, halved(self._shape)) if self._coarse else start)

    def resume(self, targets: Tensor, state: Mapping[str, Any]) -> ImageParameters:
        return self._parameters(state["pixels"].to(self._device).clone())

    def _parameters(self, pixels: Tensor) -> PixelParameters:
        return PixelParameters(
            pixels,
            learning_rate=self._options.learning_rate,
            bounds=(self._low, self._high) if self._options.valid_range else None,
            full=self._shape[1:] if self._coarse else None,
        )

    def _pixels(self, count: int) -> Tensor:
        """Draw the images (N, C, H, W) with which the optimisation starts."""
        shape = (count, *self._shape)
        if self._options.start == "normal":
            return torch.randn(shape, generator=self._draws).to(self._device)
        if self._options.start == "smooth":
            levels = smooth_noise(shape, self._options.start_scale, generator=self._draws)
        else:
            levels = procedural_images(self._shape, count, kinds=(self._options.start,), generator=self._draws)
        return torch.lerp(self._low, self._high, levels.to(self._device))


class FreshGenerator(Start):
    """Makes a generator with new random weights and new codes for each batch."""

    def __init__(
        self, options: RedrawnOptions, teacher: Teacher, *, draws: torch.Generator, device: torch.device
    ) -> None:
        self._options = options
        self._teacher = teacher
        self._draws = draws
        self._device = device

    def begin(self, targets: Tensor) -> GeneratorParameters:
        options = self._options
        network = self.new_network()
        codes = torch.randn((len(targets), options.latent_dim), generator=self._draws).to(self._device)
        return GeneratorParameters(
            network,
            codes,
            engine=self._teacher.engine,
            learning_rate=options.learning_rate,
            code_learning_rate=options.code_learning_rate,
        )

    def new_network(self) -> Generator:
        """Return a generator with random weights, which maps codes (N, latent_dim) to images."""
        options = self._options
        return Generator(
            self._teacher.input_space,
            latent_dim=options.latent_dim,
            width=options.width,
            batchnorm_eps=options.batchnorm_eps,
            spectral_norm=False,
            output=options.output,
            generator=self._draws,
        ).to(self._device)


def smooth_noise(shape: tuple[int, int, int, int], scale: int, *, generator: torch.Generator) -> Tensor:
    """Draw values in [0, 1], (N, C, H, W): uniform on a grid of `scale` pixels, linear in between."""
    count, channels, height, breadth = shape
    grid = (count, channels, -(-height // scale), -(-breadth // scale))
    coarse = torch.rand(grid, generator=generator)
    return F.interpolate(coarse, size=(height, breadth), mode="bilinear", align_corners=False)
