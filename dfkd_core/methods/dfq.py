"""DFQ. Choi, Choi, El-Khamy, Lee: Data-Free Network Quantization With Adversarial Knowledge Distillation, CVPR
workshops 2020, https://arxiv.org/abs/2005.04136.

DAFL's confidence and balance with BatchNorm statistics in place of activation, and the student's disagreement. Nothing
is quantised here.
"""

from dfkd_core.methods.parts.generator_method import TermMethod
from dfkd_core.options import DfqOptions


class Dfq(TermMethod[DfqOptions]):
    """The generator with DFQ's loss."""
