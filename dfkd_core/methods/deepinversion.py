"""DeepInversion. Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha, Kautz: Dreaming to Distill: Data-free Knowledge
Transfer via DeepInversion, CVPR 2020, https://arxiv.org/abs/1912.08795.

Pixels are optimised until the teacher recognises the wanted class and its BatchNorm layers see the statistics of their
training, or what stands in for those where the file has none (`pseudo_statistics`). With `adv_weight`, the method is
the adaptive form, which prefers images on which the student disagrees.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_core.images.procedural import procedural_images
from dfkd_core.methods.parts.figure_start import FigureStart
from dfkd_core.methods.parts.image_method import ClassTargets, ImageMethod
from dfkd_core.methods.parts.image_starts import PixelStart, Start
from dfkd_core.methods.parts.image_terms import Step, usual_terms
from dfkd_core.networks import inversion_losses
from dfkd_core.networks.pseudo_statistics import with_pseudo_statistics
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.methods.deepinversion import PSEUDO_PICTURES, DeepInversionOptions
from dfkd_core.planning.rounds import chunks
from dfkd_core.rng import Streams


class DeepInversion(ImageMethod):
    """Optimises pixels towards classes, or towards soft targets if the teacher has no BatchNorm statistics."""

    def __init__(
        self, options: DeepInversionOptions, teacher: Teacher, *, streams: Streams, device: torch.device
    ) -> None:
        draws = streams["images"]
        if options.pseudo_statistics:
            pictures = _pictures(options, teacher, generator=streams.again("pseudo-statistics"), device=device)
            teacher = with_pseudo_statistics(teacher, pictures)

        def competition(step: Step) -> Tensor:
            """Return 1 − JS(teacher, student), the published competition, with JS clamped at a limit."""
            return inversion_losses.limited_js(step.logits, step.student_logits(), limit=options.adv_limit)

        soft = options.targets == "soft" or (options.targets == "auto" and "batchnorm" not in teacher.offers)
        coarse = options.coarse_steps > 0
        start: Start = PixelStart(options, teacher.input_space, draws=draws, device=device, coarse=coarse)
        if options.figure_share:
            start = FigureStart(options, teacher, pixels=start, draws=draws, device=device)
        classes = ClassTargets(teacher.num_classes, draws=draws, device=device)
        super().__init__(
            options,
            teacher,
            start=start,
            targets=SoftTargets(classes, lift=options.target_lift) if soft else classes,
            terms=usual_terms(options, feedback=competition),
            draws=draws,
            device=device,
            coarse_steps=options.coarse_steps,
        )


def _pictures(
    options: DeepInversionOptions, teacher: Teacher, *, generator: torch.Generator, device: torch.device
) -> Iterator[Tensor]:
    """Draw the pictures for pseudo-statistics, in batches (N, C, H, W) of the teacher's valid pixel range."""
    low, high = (bound.to(device) for bound in teacher.input_space.bounds())
    shape, kinds = teacher.input_space.shape, options.pseudo_statistics
    for count in chunks(PSEUDO_PICTURES, teacher.engine.compute.label_chunk):
        levels = procedural_images(shape, count, kinds=kinds, generator=generator, device=device)
        yield torch.lerp(low, high, levels)


class SoftTargets:
    """Draws soft targets of low and high certainty; each class is wanted equally often."""

    def __init__(self, classes: ClassTargets, *, lift: float) -> None:
        self._classes = classes
        self._lift = lift

    def __call__(self, count: int) -> Tensor:
        """Draw probabilities (count, num_classes): softmax of normal logits, the wanted class raised by U(0, lift)."""
        onehot = self._classes(count)
        draws = self._classes.draws
        logits = torch.randn(onehot.shape, generator=draws)
        lift = torch.rand((count, 1), generator=draws) * self._lift
        return F.softmax(logits.to(onehot.device) + lift.to(onehot.device) * onehot, dim=1)
