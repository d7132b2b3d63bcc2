"""Zero-shot knowledge distillation. Nayak, Mopuri, Shaj, Babu, Chakraborty: Zero-Shot Knowledge Distillation in Deep
Networks, ICML 2019, https://arxiv.org/abs/1905.08114.

The rows of the teacher's last layer say how similar its classes are. For each class, soft labels are drawn from a
Dirichlet distribution that is concentrated on the similar classes, and pixels are optimised until the teacher's outputs
equal them ("data impressions").
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.errors import RequirementError
from dfkd_core.methods.parts.image_method import ClassTargets, ImageMethod
from dfkd_core.methods.parts.image_starts import PixelStart
from dfkd_core.methods.parts.image_terms import cross_entropy, usual_terms
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.zskd import ZskdOptions
from dfkd_core.rng import Streams

LEAST_CONCENTRATION = 1e-3  # of the class that is least similar, where the paper's 0 would not be a Dirichlet parameter


class Zskd(ImageMethod):
    """Optimises pixels towards soft labels that are sampled for each class."""

    def __init__(self, options: ZskdOptions, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        draws = streams["images"]

        classifier = teacher.classifier
        if not isinstance(classifier, nn.Linear) or len(classifier.weight) != teacher.num_classes:
            raise RequirementError(
                "zskd needs a linear classifier with a row for each class", pointer="/distillation/method"
            )
        super().__init__(
            options,
            teacher,
            start=PixelStart(options, teacher.input_space, draws=draws, device=device),
            targets=DirichletTargets(
                class_similarity(classifier.weight),
                options.scales,
                classes=ClassTargets(teacher.num_classes, draws=draws, device=device),
            ),
            terms=usual_terms(options, target=cross_entropy(temperature=options.temperature)),
            draws=draws,
            device=device,
        )


class DirichletTargets:
    """Draws soft labels. Those of a class come from a Dirichlet distribution that favours the classes similar to it."""

    def __init__(self, similarity: Tensor, scales: Sequence[float], *, classes: ClassTargets) -> None:
        """`similarity` (K, K) is that of `class_similarity`."""
        self._concentrations = similarity.cpu().double().clamp(min=LEAST_CONCENTRATION)
        self._scales = torch.tensor(scales, dtype=torch.float64)
        self._classes = classes

    def __call__(self, count: int) -> Tensor:
        """Draw probabilities (count, K). All classes and scales occur equally often."""
        classes, draws = self._classes.classes(count), self._classes.draws
        scales = self._scales[torch.randperm(count, generator=draws) % len(self._scales)]
        seed = int(torch.randint(2**63 - 1, (), generator=draws))
        source = np.random.default_rng(seed)  # torch draws no Dirichlet with a generator of one's own
        concentrations = (scales[:, None] * self._concentrations[classes.cpu()]).numpy()
        rows = np.stack([source.dirichlet(concentration) for concentration in concentrations])
        return torch.from_numpy(rows).float().to(classes.device)


def class_similarity(weight: Tensor) -> Tensor:
    """Return how similar the classes are, (K, K): cosines of the rows of `weight` (K, F), scaled to [0, 1] in each row.

    The paper's class similarity matrix, with its min-max normalisation: a class is as similar to itself as can be.
    """
    unit = F.normalize(weight.detach(), dim=1)
    cosines = unit @ unit.T
    low, high = cosines.amin(dim=1, keepdim=True), cosines.amax(dim=1, keepdim=True)
    return (cosines - low) / (high - low).clamp(min=torch.finfo(cosines.dtype).tiny)
