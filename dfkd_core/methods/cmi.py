"""Contrastive model inversion. Fang, Song, Wang, Shen, Wang, Song: Contrastive Model Inversion for Data-Free Knowledge
Distillation, IJCAI 2021, https://arxiv.org/abs/2105.08584.

Images on which the teacher is confident tend to be alike. A head therefore embeds the teacher's features of an image,
and a contrastive loss demands that a crop of an image is nearer to the whole image than to all other images, those of
earlier batches included.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.methods.parts.image_method import ClassTargets, ImageMethod, Reader
from dfkd_core.methods.parts.image_parameters import Group
from dfkd_core.methods.parts.image_starts import FreshGenerator
from dfkd_core.methods.parts.image_terms import Step, Term, usual_terms
from dfkd_core.methods.parts.part import Part
from dfkd_core.methods.parts.past_statistics import PastStatistics
from dfkd_core.networks import inversion_losses
from dfkd_core.networks.teacher import Observation, Teacher
from dfkd_core.options.methods.cmi import CmiOptions
from dfkd_core.rng import Streams


class Cmi(ImageMethod):
    """Optimises a new generator for each batch; a contrastive term compares the images with earlier images."""

    def __init__(self, options: CmiOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        draws = streams["images"]
        reader = embedding_reader(teacher)
        example = torch.zeros((1, *teacher.input_space.shape), device=device)
        contrast = Contrast(options, reader, example, draws=draws)
        own = [Term("contrast", options.contrast_weight, contrast.loss)] if options.contrast_weight else []
        super().__init__(
            options,
            teacher,
            start=FreshGenerator(options, teacher, draws=draws, device=device),
            targets=ClassTargets(teacher.num_classes, draws=draws, device=device),
            terms=[*usual_terms(options), *own],
            past=PastStatistics(options.bn_past),
            parts=[contrast],
            reader=reader,
            draws=draws,
            device=device,
        )


def embedding_reader(teacher: Teacher) -> Reader:
    """Return a function from images (N, C, H, W) to logits (N, num_classes) and the features (N, F) to embed.

    The features are channel means at all BatchNorm inputs, else penultimate features, else the logits, whichever the
    teacher offers first.
    """

    def logits_twice(images: Tensor, *, moments: bool = False) -> Observation:
        seen = teacher.observe(images, moments=moments)
        return replace(seen, features=seen.logits)

    if "batchnorm" in teacher.offers:
        return partial(teacher.observe, features="channel_means")
    return partial(teacher.observe, features="penultimate") if "features" in teacher.offers else logits_twice


class Contrast(Part):
    """Holds the embedding head and the features of earlier images.

    The features are those of local and whole views, (M, 2, F), newest last.
    """

    def __init__(self, options: CmiOptions, reader: Reader, example: Tensor, *, draws: torch.Generator) -> None:
        self._options = options
        self._reader = reader
        self._draws = draws
        self._device = example.device
        with torch.no_grad():
            self._width = self._features_of(example).shape[1]
        self.restart()

    def restart(self) -> None:
        """Start with a new head and no earlier images."""
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator, which must not change
            torch.manual_seed(int(torch.randint(2**31, (), generator=self._draws)))
            width = self._width
            head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self._options.embedding_dim))
        self._head = head.to(self._device)
        self._features = torch.zeros((0, 2, self._width), device=self._device)

    @property
    def groups(self) -> list[Group]:
        """The weights of the head with their learning rate."""
        return [(list(self._head.parameters()), self._options.head_learning_rate)]

    def loss(self, step: Step) -> Tensor:
        """Return InfoNCE of local views and whole views; earlier images serve as negatives and as anchors too."""
        assert step.features is not None
        local, whole = self._local_features(step.images), step.features.detach()  # (N, F) each
        count = min(self._options.negatives, len(self._features))
        chosen = torch.randint(max(1, len(self._features)), (count,), generator=self._draws)
        earlier = self._features[chosen.to(self._device)]  # (count, 2, F)
        anchors, positives = torch.cat([local, earlier[:, 0]]), torch.cat([whole, earlier[:, 1]])  # (N + count, F)
        with torch.no_grad():
            positives = self._head(positives)
        return inversion_losses.info_nce(
            self._head(anchors), positives, temperature=self._options.contrast_temperature, new=len(local)
        )

    def _local_features(self, images: Tensor) -> Tensor:
        views = cropped(images, self._options.crop, mirror=self._options.mirror, generator=self._draws)
        return self._features_of(views)

    def _features_of(self, images: Tensor) -> Tensor:
        features = self._reader(images).features
        assert features is not None
        return features

    def finish(self, images: Tensor, targets: Tensor) -> None:
        """Keep the teacher's features of the new images."""
        if not self._options.contrast_weight:
            return
        with torch.no_grad():
            whole = self._features_of(images)
            pairs = torch.stack([self._local_features(images), whole], dim=1)  # (N, 2, F)
        self._features = torch.cat([self._features, pairs])[-self._options.feature_capacity :]

    def state(self) -> dict[str, Any]:
        """Return the head and the features of earlier images."""
        head = {name: tensor.clone() for name, tensor in self._head.state_dict().items()}
        return {"head": head, "features": self._features}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier head and its images."""
        self._head.load_state_dict(state["head"])
        self._features = state["features"].to(self._device).clone()


def cropped(images: Tensor, least: float, *, mirror: float, generator: torch.Generator) -> Tensor:
    """Crop each image (N, C, H, W) to a random part, scale it to full size, and mirror some of the images.

    A part has at least the share `least` of the area; `mirror` is the probability of a mirror image.
    """
    lots = torch.rand((4, len(images)), generator=generator)
    side = (least + (1 - least) * lots[0]).sqrt()  # (N,), the side of the part relative to the image's side
    sign = torch.where(lots[3] < mirror, -1.0, 1.0)
    offset = (1 - side) * (2 * lots[1:3] - 1)  # (2, N)
    zero = torch.zeros(len(images))
    rows = [torch.stack([side * sign, zero, offset[0]], dim=1), torch.stack([zero, side, offset[1]], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1).to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
