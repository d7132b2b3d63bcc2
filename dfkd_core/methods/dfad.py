"""DFAD. Fang, Song, Shen, Wang, Chen, Song: Data-Free Adversarial Distillation, 2019,
https://arxiv.org/abs/1912.11006.

A generator learns to make images on which the student's logits are far from the teacher's; the student learns five
times for each of its updates.
"""

from dfkd_core.methods.parts.generator_method import TermMethod
from dfkd_core.options import DfadOptions


class Dfad(TermMethod[DfadOptions]):
    """The generator with DFAD's loss."""
