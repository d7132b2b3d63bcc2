"""What every method with a learnt generator can be told (torch-free)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dfkd_core.values import Fraction, Frozen, Positive


class SynthesisOptions(Frozen):
    """What the loop asks of every method."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """What a teacher must offer."""

    batch_size: Annotated[int, Field(ge=2, le=8192)] = Field(64, description="Images per update of the synthesizer.")
    updates_per_round: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Updates of the synthesizer per round."
    )
    warmup_rounds: Annotated[int, Field(ge=0, le=100_000)] = Field(
        20, description="Rounds before the first student update; without the student's feedback."
    )
    restart_rounds: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        0, description="Teaching rounds after which the synthesizer starts anew from random weights; 0: never."
    )


class GeneratorOptions(SynthesisOptions):
    """A persistent generator with Adam."""

    latent_dim: Annotated[int, Field(ge=1, le=4096)] = Field(256, description="Length of the generator's noise vector.")
    width: Annotated[int, Field(ge=1, le=512)] = Field(16, description="Channels of the last inner convolution.")
    learning_rate: Positive = Field(0.001, description="Of Adam.")
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = Field(
        [0.9, 0.999], description="Of Adam: decay of its two moments."
    )
    decay: Literal["cosine", "none"] = Field("none", description="Of the learning rate, until the consolidation.")
    gradient_clip: Positive | None = Field(5.0, description="Largest gradient norm of a generator update.")
    spectral_norm: bool = Field(False, description="Spectral norm on the generator's convolutions.")
    batchnorm_eps: Positive = Field(0.8, description="Epsilon of the inner BatchNorms; 0.8 as published damps them.")
    output: Literal["bounded", "standardised"] = Field(
        "standardised",
        description="bounded: the teacher's valid pixel range; standardised: tanh, then BatchNorm (published).",
    )
