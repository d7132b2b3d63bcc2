"""MAD. Do, Le, Nguyen, Nguyen, Harikumar, Tran, Rana, Venkatesh: Momentum Adversarial Distillation: Handling Large
Distribution Shifts in Data-Free Knowledge Distillation, NeurIPS 2022, https://arxiv.org/abs/2209.10359.

The loss rewards disagreement of teacher and student only up to a bound. The generator first learns without the student,
and may take a class as input. The student learns from the generator and from the generator's moving average, which is
the memory `ema`.
"""

from torch import nn

from dfkd_core.methods.parts.conditional_method import ConditionalMethod
from dfkd_core.options.methods.mad import MadOptions


class Mad(ConditionalMethod[MadOptions]):
    """Trains the generator with MAD's loss."""

    def _nll_weight(self, student: nn.Module | None) -> float:
        return self._options.nll_weight if student is not None else self._options.warmup_nll_weight
