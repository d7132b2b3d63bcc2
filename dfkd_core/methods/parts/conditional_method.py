"""ConditionalMethod: a generator that may take a class as input, with the loss terms of the class."""

from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_core.methods.parts.generator_method import Answers, TermMethod, Terms
from dfkd_core.networks import losses
from dfkd_core.networks.generators import ConditionalGenerator, Generator
from dfkd_core.options.generators import ConditionalOptions

ConditionalOptionsT = TypeVar("ConditionalOptionsT", bound=ConditionalOptions)


class ConditionalMethod(TermMethod[ConditionalOptionsT]):
    """Adds two terms to the usual ones: cross-entropy with the wanted class, and the norm of long embeddings."""

    def _network(self) -> Generator | ConditionalGenerator:
        options = self._options
        if options.conditioning == "uncond":
            return self._plain_network(options.latent_dim)
        joined = options.conditioning == "cat"
        return ConditionalGenerator(
            self._plain_network(2 * options.latent_dim if joined else options.latent_dim),
            num_classes=self._teacher.num_classes,
            latent_dim=options.latent_dim,
            joined=joined,
            generator=self._weights,
        )

    def _nll_weight(self, student: nn.Module | None) -> float:
        return self._options.nll_weight

    def _terms(self, images: Tensor, student: nn.Module | None, *, inputs: tuple[Tensor, ...]) -> Terms:
        answers = self._answers(images)
        terms = self._usual_terms(images, answers, student)
        weight = self._nll_weight(student)
        if weight:
            terms["nll"] = (weight, self._nll(answers, inputs))
        if self._options.norm_weight and isinstance(self.network, ConditionalGenerator):
            terms["norm"] = (self._options.norm_weight, losses.norm_excess(self.network.embedding))
        return terms

    def _nll(self, answers: Answers, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return the teacher's cross-entropy with the wanted class, or with its own argmax without a wanted class."""
        if isinstance(self.network, ConditionalGenerator):
            return F.cross_entropy(answers.logits, inputs[1])
        return losses.onehot(answers.logits)
