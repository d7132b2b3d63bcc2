"""PRE-DFKD's novel generator. Binici, Aggarwal, Pham, Leman, Mitra: Robust and Resource-Efficient Data-Free Knowledge
Distillation by Generative Pseudo Replay, AAAI 2022, https://arxiv.org/abs/2201.03019.

A generator learns to make images on which the teacher is confident and the student disagrees with the teacher. The
images are balanced over the classes, have large teacher features, and match the teacher's BatchNorm statistics if the
teacher has any.
"""

from torch import Tensor, nn

from dfkd_core.methods.parts.generator_method import TermMethod
from dfkd_core.options.methods.pre_dfkd import PreDfkdOptions


class PreDfkd(TermMethod[PreDfkdOptions]):
    """Trains the generator with PRE-DFKD's loss."""

    def _adversarial(self, images: Tensor, teacher_logits: Tensor, student: nn.Module) -> Tensor:
        """Return 1 − disagreement, as published; the disagreement lies in [0, 1]."""
        return 1 + super()._adversarial(images, teacher_logits, student)
