"""FigureStart: some chunks of images are figures, whose strokes are optimised in place of their pixels."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.images.drawn.figures import AT_ONCE, Figures
from dfkd_core.methods.parts.image_parameters import Group, ImageParameters
from dfkd_core.methods.parts.image_starts import Start
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.deepinversion import DeepInversionOptions

PEN_RATE, COLOUR_RATE = 0.1, 0.5  # learning rates, in those of the points
ROUNDING = 1e-6  # images by which a share of them may be off
DIFFERENT = 0.5  # of a candidate's cross-entropy is drawn at random, lest the same figures serve every target


class FigureParameters(ImageParameters):
    """Points, pens and ink of N figures. `bounds` are lowest and highest pixel values, (1, C, 1, 1) each."""

    def __init__(self, figures: Figures, *, learning_rate: float, bounds: tuple[Tensor, Tensor]) -> None:
        self.figures = figures
        for leaf in (figures.points, figures.pen, figures.ink):
            leaf.requires_grad_()
        self._learning_rate = learning_rate
        self._bounds = bounds

    @property
    def groups(self) -> list[Group]:
        figures, rate = self.figures, self._learning_rate
        return [([figures.points], rate), ([figures.pen], PEN_RATE * rate), ([figures.ink], COLOUR_RATE * rate)]

    def images(self) -> Tensor:
        return torch.lerp(*self._bounds, self.figures.pictures())

    def project(self) -> None:
        self.figures.project()

    def state(self) -> dict[str, Any]:
        return {"figures": self.figures.state()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        for name, value in state["figures"].items():
            getattr(self.figures, name).copy_(value)


class FigureStart(Start):
    """Makes figures in some of the chunks, `options.figure_share` of the images; `pixels` makes the others.

    For each target several figures are drawn, and of those that are left the one is taken whose class the teacher
    thinks nearest to the target. At most `AT_ONCE` targets choose among the same figures.
    """

    def __init__(
        self,
        options: DeepInversionOptions,
        teacher: Teacher,
        *,
        pixels: Start,
        draws: torch.Generator,
        device: torch.device,
    ) -> None:
        self._options = options
        self._teacher = teacher
        self._pixels = pixels
        self._low, self._high = (bound.to(device) for bound in teacher.input_space.bounds())
        self._draws = draws
        self._device = device
        self._begun, self._figures = 0, 0  # images that were begun, and those of them that are figures

    def begin(self, targets: Tensor) -> ImageParameters:
        self._begun += len(targets)
        if self._options.figure_share * self._begun + ROUNDING < self._figures + len(targets):
            return self._pixels.begin(targets)
        self._figures += len(targets)
        return self._parameters(Figures.join([self._nearest(part) for part in torch.split(targets, AT_ONCE)]))

    def resume(self, targets: Tensor, state: Mapping[str, Any]) -> ImageParameters:
        if "figures" not in state:
            return self._pixels.resume(targets, state)
        size = self._teacher.input_space.shape[1:]
        return self._parameters(Figures.of(state["figures"], size=size, device=self._device))

    def _parameters(self, figures: Figures) -> FigureParameters:
        rate = self._options.figure_learning_rate
        return FigureParameters(figures, learning_rate=rate, bounds=(self._low, self._high))

    @torch.no_grad()
    def _nearest(self, targets: Tensor) -> Figures:
        """Draw candidates, and return one for each of the targets (N, num_classes)."""
        count, shape = len(targets), self._teacher.input_space.shape
        drawn = [Figures.drawn(shape, count, generator=self._draws) for _ in range(self._options.figure_candidates)]
        pictures = (each.to(self._device).pictures() for each in drawn)
        logits = [self._teacher.label(torch.lerp(self._low, self._high, levels)).cpu() for levels in pictures]
        likelihoods = F.log_softmax(torch.cat(logits).float(), dim=1)
        cost = -targets.cpu() @ likelihoods.T  # (N, candidates of all), cross-entropies
        cost += DIFFERENT * torch.rand(cost.shape, generator=self._draws)
        numbers = []
        for row in cost:
            numbers.append(int(row.argmin()))
            cost[:, numbers[-1]] = torch.inf
        return Figures.join(drawn).take(numbers).to(self._device)

    def restart(self) -> None:
        self._begun, self._figures = 0, 0

    def state(self) -> dict[str, Any]:
        return {"figures_begun": [self._begun, self._figures]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._begun, self._figures = state.get("figures_begun", (0, 0))
