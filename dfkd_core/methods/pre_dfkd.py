"""PRE-DFKD's novel generator. Binici, Aggarwal, Pham, Leman, Mitra: Robust and Resource-Efficient Data-Free Knowledge
Distillation by Generative Pseudo Replay, AAAI 2022, https://arxiv.org/abs/2201.03019.

A generator learns to make images that the teacher is sure of, that are balanced over its classes, that excite its
features, that fit its BatchNorm statistics where it has them, and on which the student disagrees with it.
"""

from torch import Tensor, nn

from dfkd_core import losses
from dfkd_core.batchnorm import BatchNormStatistics
from dfkd_core.methods.generator_method import GeneratorMethod, Terms, evaluating
from dfkd_core.options import PreDfkdOptions


class PreDfkd(GeneratorMethod[PreDfkdOptions]):
    """The generator with PRE-DFKD's loss."""

    def _terms(self, images: Tensor, student: nn.Module | None) -> Terms:
        """Every term of the loss with its weight; terms without weight are not computed."""
        options, teacher = self._options, self._teacher
        features = None
        with BatchNormStatistics(teacher.network) as statistics:
            if options.activation_weight and "features" in teacher.offers:
                logits, features = teacher.forward_with_features(images)
            else:
                logits = teacher(images)
            terms = {
                "onehot": (options.onehot_weight, losses.onehot(logits)),
                "balance": (options.balance_weight, losses.class_balance(logits)),
            }
            if options.bn_weight and "batchnorm" in teacher.offers:
                terms["bn"] = (options.bn_weight, statistics.distance())
        if features is not None:
            terms["activation"] = (options.activation_weight, losses.activation(features))
        if options.smoothness_weight:
            terms["smoothness"] = (options.smoothness_weight, losses.total_variation(images))
        if student is not None and options.adv_weight:
            terms["adv"] = (options.adv_weight, self._adversarial(images, logits, student))
        return terms

    def _adversarial(self, images: Tensor, teacher_logits: Tensor, student: nn.Module) -> Tensor:
        """1 − disagreement, not pushed beyond `adv_limit`. The published form has a detached teacher."""
        options = self._options
        with evaluating(student):
            student_logits = student(images)
        if options.disagreement == "pseudo_js":
            divergence = losses.pseudo_js(teacher_logits.detach(), student_logits, temperature=options.temperature)
        else:
            divergence = losses.js_divergence(teacher_logits, student_logits, temperature=options.temperature)
        return 1 - divergence.clamp(0, options.adv_limit)
