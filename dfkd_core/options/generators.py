"""The options that all methods with a learnt generator share (torch-free)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.base import Shape, SynthesisOptions
from dfkd_core.options.field_types import Fraction, Positive, Weight
from dfkd_core.options.passes import Direction, Network, Passes, passes

LearningRate = Annotated[Positive, Field(description="Learning rate of Adam.")]
OnehotWeight = Annotated[Weight, Field(description="Weight of the teacher's confidence, CE(t, argmax t).")]
BalanceWeight = Annotated[Weight, Field(description="Weight of the class balance, sum of mean p times log10 mean p.")]
ActivationWeight = Annotated[Weight, Field(description="Weight of mean |penultimate feature|, where offered.")]
BatchNormWeight = Annotated[Weight, Field(description="Weight of the BatchNorm statistics, where offered.")]
SmoothnessWeight = Annotated[Weight, Field(description="Weight of the total variation of the images.")]
AdvWeight = Annotated[Weight, Field(description="Weight of the disagreement of teacher and student.")]
AdvLimit = Annotated[
    Weight | None, Field(description="Disagreement beyond which the generator is not pushed; null: none.")
]
Disagreement = Annotated[
    Literal["js", "pseudo_js", "l1", "kl"],
    Field(description="js: Jensen-Shannon in [0, 1]; pseudo_js: as PRE-DFKD's code; l1: of logits; kl: KL(t || s)."),
]


class GeneratorOptions(SynthesisOptions):
    """A generator that lives for the whole run and learns with Adam."""

    gives: ClassVar[frozenset[str]] = frozenset({"generator"})

    latent_dim: Annotated[int, Field(ge=1, le=4096)] = Field(256, description="Length of the generator's noise vector.")
    width: Annotated[int, Field(ge=1, le=512)] = Field(16, description="Channels of the last inner convolution.")
    learning_rate: LearningRate = 0.001
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = Field(
        [0.9, 0.999], description="Decay rates of Adam's two moments."
    )
    decay: Literal["cosine", "none"] = Field("none", description="Decay of the learning rate until the consolidation.")
    gradient_clip: Positive | None = Field(5.0, description="Largest gradient norm of a generator update.")
    spectral_norm: bool = Field(False, description="Spectral norm on the generator's convolutions.")
    batchnorm_eps: Positive = Field(0.8, description="Epsilon of the inner BatchNorms; 0.8 as published damps them.")
    output: Literal["bounded", "standardised"] = Field(
        "standardised",
        description="bounded: the teacher's valid pixel range; standardised: tanh, then BatchNorm (published).",
    )

    def update_passes(self, shape: Shape, *, feedback: bool) -> list[Passes]:
        """Return the passes of teacher and generator."""
        made = passes(Network.GENERATOR, Direction.TO_WEIGHTS, self.batch_size)
        return [*super().update_passes(shape, feedback=feedback), made]

    def sample_passes(self, count: int) -> list[Passes]:
        """Return the generator's passes, in whole batches of its training."""
        return [passes(Network.GENERATOR, Direction.FORWARD, self.batch_size, times=-(-count // self.batch_size))]


class TermOptions(GeneratorOptions):
    """The weights of the terms of a generator's loss. Each method starts from its paper's weights; any term may be
    added by a weight above 0.
    """

    implementation: ClassVar[str] = "dfkd_core.methods.parts.generator_method:TermMethod"

    onehot_weight: OnehotWeight = 0.0
    balance_weight: BalanceWeight = 0.0
    activation_weight: ActivationWeight = 0.0
    bn_weight: BatchNormWeight = 0.0
    smoothness_weight: SmoothnessWeight = 0.0
    adv_weight: AdvWeight = 0.0
    adv_limit: AdvLimit = None
    bound_mode: Literal["per_sample", "batch_mean"] = Field(
        "batch_mean", description="What adv_limit bounds: every image's disagreement, or the mean over the batch."
    )
    disagreement: Disagreement = "js"
    temperature: Positive = Field(1.0, description="Softmax temperature within the disagreement.")

    def update_passes(self, shape: Shape, *, feedback: bool) -> list[Passes]:
        """Return the passes of teacher and generator, and the student's if the disagreement has a weight."""
        usual = super().update_passes(shape, feedback=feedback)
        asked = feedback and self.adv_weight
        return [*usual, passes(Network.STUDENT, Direction.TO_INPUT, self.batch_size)] if asked else usual


class ConditionalOptions(TermOptions):
    """The options of a generator that may receive a class beside its noise."""

    implementation: ClassVar[str] = "dfkd_core.methods.parts.conditional_method:ConditionalMethod"

    conditioning: Literal["uncond", "sum", "cat"] = Field(
        "sum", description="How the class's learnt embedding joins the noise: not at all, added, or behind it."
    )
    nll_weight: Weight = Field(1.0, description="Weight of CE(t, class that was asked for); argmax t without one.")
    norm_weight: Weight = Field(
        0.1, description="Weight of the embeddings' norms beyond that of the noise, where there are embeddings."
    )
