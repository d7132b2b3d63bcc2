"""DeepInversion. Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha, Kautz: Dreaming to Distill: Data-free Knowledge
Transfer via DeepInversion, CVPR 2020, https://arxiv.org/abs/1912.08795.

Pixels are optimised until the teacher sees the class that was asked for, and its BatchNorms the statistics they saw in
training. With `adv_weight` it is the adaptive form: images on which the student disagrees are preferred.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.methods.parts.image_method import ClassTargets, ImageMethod
from dfkd_core.methods.parts.image_starts import PixelStart
from dfkd_core.methods.parts.image_terms import Step, usual_terms
from dfkd_core.networks import inversion_losses
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.deepinversion import DeepInversionOptions
from dfkd_core.rng import Streams


class DeepInversion(ImageMethod):
    """Pixels; classes as targets, soft ones for a teacher without statistics to match; the student competes."""

    def __init__(
        self, options: DeepInversionOptions, teacher: Teacher, *, streams: Streams, device: torch.device
    ) -> None:
        draws = streams["images"]

        def competition(step: Step) -> Tensor:
            """1 − JS(teacher, student), the published competition, up to a limit (eq. 6)."""
            return inversion_losses.limited_js(step.logits, step.student_logits(), limit=options.adv_limit)

        soft = options.targets == "soft" or (options.targets == "auto" and "batchnorm" not in teacher.offers)
        classes = ClassTargets(teacher.num_classes, draws=draws, device=device)
        super().__init__(
            options,
            teacher,
            start=PixelStart(options, teacher.input_space, draws=draws, device=device),
            targets=SoftTargets(classes, lift=options.target_lift) if soft else classes,
            terms=usual_terms(options, feedback=competition),
            draws=draws,
            device=device,
        )


class SoftTargets:
    """Probabilities of every certainty, each class's equally often the largest."""

    def __init__(self, classes: ClassTargets, *, lift: float) -> None:
        self._classes = classes
        self._lift = lift

    def __call__(self, count: int) -> Tensor:
        """Softmax of normal logits (count, num_classes), of which that of the image's class is raised by U(0, lift)."""
        onehot = self._classes(count)
        draws = self._classes.draws
        logits = torch.randn(onehot.shape, generator=draws)
        lift = torch.rand((count, 1), generator=draws) * self._lift
        return F.softmax(logits.to(onehot.device) + lift.to(onehot.device) * onehot, dim=1)
