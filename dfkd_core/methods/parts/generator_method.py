"""GeneratorMethod and TermMethod: the base of methods with a persistent generator, and the usual terms of the loss."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from dfkd_core.methods.parts.synthesizer import Synthesizer
from dfkd_core.networks import losses
from dfkd_core.networks.generators import ConditionalGenerator, Generator
from dfkd_core.networks.hooks import buffers_kept_on_error, evaluating
from dfkd_core.networks.recomputation import in_chunks
from dfkd_core.networks.teacher import Teacher
from dfkd_core.options.generators import GeneratorOptions, TermOptions
from dfkd_core.rng import Streams

OptionsT = TypeVar("OptionsT", bound=GeneratorOptions)
TermOptionsT = TypeVar("TermOptionsT", bound=TermOptions)

Terms = dict[str, tuple[float, Tensor]]
"""Maps the name of a loss term to its weight and its value, a scalar."""


class GeneratorMethod(Synthesizer, Generic[OptionsT]):
    """Trains a generator, which maps noise (N, latent_dim) to images (N, C, H, W), with Adam."""

    def __init__(self, options: OptionsT, teacher: Teacher, *, streams: Streams, device: torch.device) -> None:
        self._options = options
        self._teacher = teacher
        self._noise = streams["generator-noise"]
        self._weights = streams["generator-weights"]
        self._device = device
        self._calmed = 1.0
        self.restart()

    @abstractmethod
    def _terms(self, images: Tensor, student: nn.Module | None, *, inputs: tuple[Tensor, ...]) -> Terms:
        """Return each term of the loss of `images` with its weight; `inputs` are the generator's inputs."""

    def _network(self) -> Generator | ConditionalGenerator:
        """Return a generator with new random weights."""
        return self._plain_network(self._options.latent_dim)

    def _plain_network(self, latent_dim: int) -> Generator:
        options = self._options
        return Generator(
            self._teacher.input_space,
            latent_dim=latent_dim,
            width=options.width,
            batchnorm_eps=options.batchnorm_eps,
            spectral_norm=options.spectral_norm,
            output=options.output,
            generator=self._weights,
        )

    def restart(self) -> None:
        """Replace the generator by one with new random weights, and its optimiser by a new one."""
        self.network = self._network().to(self._device)
        self._teacher.engine.to_channels_last(self.network, self._device)
        first, second = self._options.betas
        self._optimizer = torch.optim.Adam(
            self.network.parameters(), lr=self._options.learning_rate, betas=(first, second)
        )

    @property
    def generator(self) -> Generator | ConditionalGenerator:
        """The network that makes the images."""
        return self.network

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step, before the schedule's factor."""
        return self._options.learning_rate * self._calmed

    def synthesize(self, student: nn.Module | None, *, rate: float) -> dict[str, Tensor]:
        """Take one Adam step on the weighted sum of the terms, and return the terms; without terms take no step."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate * (rate if self._options.decay == "cosine" else 1.0)
        with buffers_kept_on_error(self.network):
            inputs = self.network.inputs(self._options.batch_size, generator=self._noise)
            terms = self._terms(self._images(inputs), student, inputs=inputs)
            if terms:
                self._step(losses.weighted_sum(terms))
        self._teacher.engine.pulse.did(self._options.batch_size)
        return {name: value.detach() for name, (_weight, value) in terms.items()}

    def _step(self, loss: Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        parameters = list(self.network.parameters())
        torch.autograd.backward(loss, inputs=parameters)
        if self._options.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, self._options.gradient_clip)
        self._optimizer.step()

    def _images(self, inputs: tuple[Tensor, ...]) -> Tensor:
        network = self.network.train()  # the published code samples with batch statistics
        images: Tensor = self._teacher.engine.in_chunks(network, *inputs)
        return images

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Generate `count` images (N, C, H, W) with the current generator, in batches of its training size."""
        size = self._options.batch_size
        with torch.no_grad(), self._teacher.engine.pulse.undisturbed():  # the buffers of the network change
            draws = (self.network.inputs(size, generator=generator) for _ in range(-(-count // size)))
            return torch.cat([self._images(inputs) for inputs in draws])[:count]

    def back_off(self) -> None:
        """Halve the learning rate for the rest of the run."""
        self._calmed /= 2

    def state(self) -> dict[str, Any]:
        """Return the network, the optimiser and the factor to which roll-backs reduced the learning rate."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "calmed": self._calmed,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of an earlier generator."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # Adam would share the tensors
        self._calmed = state["calmed"]


@dataclass(frozen=True, slots=True)
class Answers:
    """The teacher's outputs for a batch of images; gradients reach the images."""

    logits: Tensor  # (N, num_classes)
    features: Tensor | None  # (N, F); None if they have no weight or the teacher does not offer them
    bn_distance: Tensor | None  # scalar; None if it has no weight or the teacher has no running statistics


class TermMethod(GeneratorMethod[TermOptionsT]):
    """A generator whose loss is a sum of the usual terms; its options give their weights and the disagreement."""

    def _terms(self, images: Tensor, student: nn.Module | None, *, inputs: tuple[Tensor, ...]) -> Terms:
        """Return each term that has a weight and that the teacher allows; terms of the student need a student."""
        return self._usual_terms(images, self._answers(images), student)

    def _answers(self, images: Tensor) -> Answers:
        """Run the teacher once, and read features and BatchNorm statistics if they have a weight."""
        options, teacher = self._options, self._teacher
        wanted = options.bn_weight > 0 and "batchnorm" in teacher.offers
        reads_features = options.activation_weight > 0 and "features" in teacher.offers
        seen = teacher.observe(images, features="penultimate" if reads_features else None, moments=wanted)
        return Answers(seen.logits, seen.features, losses.batchnorm_distance(seen.moments) if wanted else None)

    def _usual_terms(self, images: Tensor, answers: Answers, student: nn.Module | None) -> Terms:
        options, terms = self._options, Terms()
        if options.onehot_weight:
            terms["onehot"] = (options.onehot_weight, losses.onehot(answers.logits))
        if options.balance_weight:
            terms["balance"] = (options.balance_weight, losses.class_balance(answers.logits))
        if answers.bn_distance is not None:
            terms["bn"] = (options.bn_weight, answers.bn_distance)
        if answers.features is not None:
            terms["activation"] = (options.activation_weight, losses.activation(answers.features))
        if options.smoothness_weight:
            terms["smoothness"] = (options.smoothness_weight, losses.total_variation(images))
        if student is not None and options.adv_weight:
            terms["adv"] = (options.adv_weight, self._adversarial(images, answers.logits, student))
        return terms

    def _adversarial(self, images: Tensor, teacher_logits: Tensor, student: nn.Module) -> Tensor:
        """Return minus the disagreement of teacher and student; beyond `adv_limit` it has no gradient."""
        options = self._options
        with evaluating(student):
            student_logits = in_chunks(student, student, images, most=self._teacher.engine.compute.chunk)
        if options.disagreement == "pseudo_js":
            teacher_logits = teacher_logits.detach()  # the released code detaches the teacher's logits
        each = losses.disagreement(
            options.disagreement, teacher_logits, student_logits, temperature=options.temperature
        )  # (N,)
        return -losses.bounded_mean(each, options.adv_limit, per_sample=options.bound_mode == "per_sample")
