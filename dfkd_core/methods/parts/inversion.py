"""Inversion: a few images while their parameters are being optimised, step by step, and what a resumed run needs."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_core.methods.parts.image_parameters import Group, ImageParameters, adam_over, set_rate
from dfkd_core.options.images import ImageOptions


class Inversion:
    """Holds the parameters behind the images (N, C, H, W), their optimiser, and the images to keep."""

    def __init__(
        self, options: ImageOptions, parameters: ImageParameters, targets: Tensor, *, steps: int, more: Sequence[Group]
    ) -> None:
        """`targets` are probabilities (N, num_classes); `more` is optimised together with the parameters.

        `steps` are those of the images as large as the parameters make them.
        """
        self.targets = targets
        self.losses: dict[str, Tensor] = {}  # of the newest step, and those of its preparation
        self.steps = 0  # done
        self._options = options
        self._total_steps = steps
        self._parameters = parameters
        groups = [*parameters.groups, *more]
        self._leaves = [leaf for group, _rate in groups for leaf in group]
        self._optimizer = adam_over(groups, options.betas)
        self._keeps_best = options.keep == "best"
        self._best, self._lowest = torch.empty(0), math.inf

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def networks(self) -> list[nn.Module]:
        """The networks that make the images."""
        return self._parameters.networks

    @property
    def parameters(self) -> ImageParameters:
        """What is optimised."""
        return self._parameters

    @property
    def finished(self) -> bool:
        """True if all steps are done."""
        return self.steps >= self._total_steps

    def images(self) -> Tensor:
        """Return the images as they are now, differentiable with respect to the parameters."""
        return self._parameters.images()

    def step(self, images: Tensor, loss: Tensor) -> None:
        """Take one step of the optimiser with the `loss` of `images`, a scalar."""
        self._set_rate()
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss, inputs=self._leaves)
        if self._keeps_best and float(loss.detach()) < self._lowest:
            self._best, self._lowest = images.detach().clone(), float(loss.detach())
        self._optimizer.step()
        self._parameters.project()
        self.steps += 1

    def _set_rate(self) -> None:
        cosine = 0.5 * (1 + math.cos(math.pi * self.steps / self._total_steps))
        set_rate(self._optimizer, cosine if self._options.decay == "cosine" else 1.0)

    def result(self) -> Tensor:
        """Return the images to keep, detached: those of the lowest loss, or the last ones."""
        return self._best if self._keeps_best and len(self._best) else self.images().detach().clone()

    def state(self) -> dict[str, Any]:
        """Return the parameters, the state of their optimiser and the images to keep."""
        return {
            "parameters": self._parameters.state(),
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "targets": self.targets,
            "losses": dict(self.losses),
            "steps": self.steps,
            "best": self._best,
            "lowest": self._lowest if math.isfinite(self._lowest) else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier inversion of as many images."""
        self._parameters.restore(state["parameters"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # Adam would share the tensors
        self.losses, self.steps = dict(state["losses"]), state["steps"]
        self._best = state["best"].to(self.targets.device)
        self._lowest = math.inf if state["lowest"] is None else state["lowest"]
