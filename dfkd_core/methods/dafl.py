"""DAFL. Chen, Wang, Xu, Yang, Liu, Shi, Xu, Xu, Tian: Data-Free Learning of Student Networks, ICCV 2019,
https://arxiv.org/abs/1904.01186.

A generator learns to make images that the teacher is sure of, that are balanced over its classes and that excite its
features. It never hears of the student.
"""

from dfkd_core.methods.parts.generator_method import TermMethod
from dfkd_core.options import DaflOptions


class Dafl(TermMethod[DaflOptions]):
    """The generator with DAFL's loss."""
