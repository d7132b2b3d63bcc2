"""DDAD. Zhao, Sun, Dong, Yu, Zhou: Dual Discriminator Adversarial Distillation for Data-Free Model Compression,
2021, https://arxiv.org/abs/2104.05382.

The teacher's BatchNorm statistics judge whether images look like those it was trained on; the student's disagreement
says which of them it still has to learn.
"""

from dfkd_core.methods.parts.generator_method import TermMethod
from dfkd_core.options import DdadOptions


class Ddad(TermMethod[DdadOptions]):
    """The generator with DDAD's loss."""
