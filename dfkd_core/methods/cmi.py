"""Contrastive model inversion. Fang, Song, Wang, Shen, Wang, Song: Contrastive Model Inversion for Data-Free Knowledge
Distillation, IJCAI 2021, https://arxiv.org/abs/2105.08584.

Images that the teacher is sure of tend to be alike. A head embeds what the teacher sees of an image; a crop of it must
be nearer to the whole than to any other image of this batch or of earlier ones.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.methods.parts.generator_method import Terms
from dfkd_core.methods.parts.image_method import RedrawnMethod
from dfkd_core.networks import inversion_losses
from dfkd_core.networks.batchnorm import ChannelMeans
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.cmi import CmiOptions
from dfkd_core.rng import Streams


class Cmi(RedrawnMethod[CmiOptions]):
    """A generator for every batch, a contrast with everything made before."""

    def __init__(self, options: CmiOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        super().__init__(options, teacher, streams=streams, device=device)
        with torch.no_grad():
            example = self._seen(torch.zeros((1, *teacher.input_space.shape), device=device))[1]
        assert example is not None
        self._width = example.shape[1]
        self._forget()

    def _forget(self) -> None:
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator; that must not show
            torch.manual_seed(int(torch.randint(2**31, (), generator=self._draws)))
            width = self._width
            head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self._options.embedding_dim))
        self._head = head.to(self._device)
        self._features = torch.zeros((0, 2, self._width), device=self._device)  # local and global views, newest last

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and what an embedding is made of: channel means at all BatchNorms, penultimate features or logits."""
        teacher = self._teacher
        if "batchnorm" in teacher.offers:
            with ChannelMeans(teacher.network) as means:
                return teacher(images), means.all()
        if "features" in teacher.offers:
            return teacher.forward_with_features(images)
        logits = teacher(images)
        return logits, logits

    def _learnt_beside(self) -> list[tuple[list[Tensor], float]]:
        return [(list(self._head.parameters()), self._options.head_learning_rate)]

    def _own_terms(self, images: Tensor, features: Tensor | None) -> Terms:
        if not self._options.contrast_weight or features is None:
            return {}
        local = self._local_features(images)
        return {"contrast": (self._options.contrast_weight, self._contrast(local, features.detach()))}

    def _contrast(self, local: Tensor, whole: Tensor) -> Tensor:
        """InfoNCE of local views (N, F) with whole ones, earlier images taking part as negatives and as anchors."""
        count = min(self._options.negatives, len(self._features))
        chosen = torch.randint(max(1, len(self._features)), (count,), generator=self._draws)
        earlier = self._features[chosen.to(self._device)]
        anchors, positives = torch.cat([local, earlier[:, 0]]), torch.cat([whole, earlier[:, 1]])
        with torch.no_grad():
            positives = self._head(positives)
        return inversion_losses.info_nce(
            self._head(anchors), positives, temperature=self._options.contrast_temperature, new=len(local)
        )

    def _local_features(self, images: Tensor) -> Tensor:
        views = cropped(images, self._options.crop, mirror=self._options.mirror, generator=self._draws)
        features = self._seen(views)[1]
        assert features is not None
        return features

    def _finish(self, images: Tensor, targets: Tensor) -> None:
        """Keep what the teacher sees of the new images."""
        super()._finish(images, targets)
        if not self._options.contrast_weight:
            return
        with torch.no_grad():
            whole = self._seen(images)[1]
            assert whole is not None
            pairs = torch.stack([self._local_features(images), whole], dim=1)  # (N, 2, F)
        self._features = torch.cat([self._features, pairs])[-self._options.feature_capacity :]

    def restart(self) -> None:
        """A new head and no earlier images."""
        super().restart()
        self._forget()

    def state(self) -> dict[str, Any]:
        """With the head and the features of earlier images."""
        head = {name: tensor.clone() for name, tensor in self._head.state_dict().items()}
        return {**super().state(), "head": head, "features": self._features}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with an earlier head and its images."""
        super().restore(state)
        self._head.load_state_dict(state["head"])
        self._features = state["features"].to(self._device).clone()


def cropped(images: Tensor, least: float, *, mirror: float, generator: torch.Generator) -> Tensor:
    """Of each image (N, C, H, W) a random part of at least that share of the area, in full size; some mirrored."""
    lots = torch.rand((4, len(images)), generator=generator)
    side = (least + (1 - least) * lots[0]).sqrt()  # of the part, relative to the image's
    sign = torch.where(lots[3] < mirror, -1.0, 1.0)
    offset = (1 - side) * (2 * lots[1:3] - 1)  # (2, N)
    zero = torch.zeros(len(images))
    rows = [torch.stack([side * sign, zero, offset[0]], dim=1), torch.stack([zero, side, offset[1]], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1).to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
