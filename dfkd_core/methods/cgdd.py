"""CGDD. Yu, Yan, Yang, Zhou, Ou: Conditional Generative Data-Free Knowledge Distillation, 2021,
https://arxiv.org/abs/2112.15358.

The generator is told a class and learns to make what the teacher takes for that class. The student learns the teacher's
answers and, with `training.hard_weight`, its classes.
"""

from dfkd_core.methods.parts.conditional_method import ConditionalMethod
from dfkd_core.options import CgddOptions


class Cgdd(ConditionalMethod[CgddOptions]):
    """The generator with CGDD's loss."""
