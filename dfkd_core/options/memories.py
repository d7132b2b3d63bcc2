"""Options of the memories (torch-free); each class has the name of its file in `memories/`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.field_types import Fraction, Frozen, Positive, Weight


class AnyMemoryOptions(Frozen):
    """What the door asks of every memory."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """What a teacher must offer."""

    needs_of_method: ClassVar[frozenset[str]] = frozenset()
    """What a method must give; see `SynthesisOptions.gives`."""


class EmaOptions(AnyMemoryOptions):
    """An exponential moving average of the generator (MAD, Do et al., NeurIPS 2022); nothing is stored or trained."""

    needs_of_method: ClassVar[frozenset[str]] = frozenset({"generator"})

    name: Literal["ema"] = Field("ema", exclude=True)
    decay: Fraction = Field(
        0.95, description="Of the average, per update of the generator. 0: the generator itself; 1: the first one."
    )


class NoMemoryOptions(AnyMemoryOptions):
    """No replay."""

    name: Literal["none"] = Field("none", exclude=True)


class ReservoirOptions(AnyMemoryOptions):
    """Uniform sample of everything ever synthesized, class-balanced, 8-bit images with cached logits."""

    name: Literal["reservoir"] = Field("reservoir", exclude=True)
    capacity: Annotated[int, Field(ge=1, le=10_000_000)] = Field(10_000, description="Images kept, over all classes.")


class PriorityOptions(AnyMemoryOptions):
    """A small bank of which the images are replayed more often that the student has not learnt yet."""

    name: Literal["priority"] = Field("priority", exclude=True)
    capacity: Annotated[int, Field(ge=1, le=10_000_000)] = Field(5000, description="Images kept, over all classes.")
    exponent: Fraction = Field(
        0.6, description="Of the divergence of teacher and student in an image's priority; 0: all alike."
    )
    correction: Fraction = Field(
        0.4, description="Exponent of the importance weights; 1: they undo the priorities altogether."
    )


class RingOptions(AnyMemoryOptions):
    """The newest batches in a ring (MB-DFKD, Binici et al., WACV 2022): the oldest gives way to the newest."""

    name: Literal["ring"] = Field("ring", exclude=True)
    slots: Annotated[int, Field(ge=1, le=100_000)] = Field(10, description="Batches kept.")
    slot_images: Annotated[int, Field(ge=1, le=8192)] = Field(128, description="Images of a batch that are kept.")
    push_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        5, description="Teaching rounds between two batches that are kept; published: 5 epochs of 36."
    )
    first_push_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1, description="Teaching rounds until the first one; published: an epoch of 36."
    )
    draw: Literal["slot", "image"] = Field(
        "slot", description="slot: whole batches, chosen uniformly (published); image: single images."
    )
    storage: Literal["float32", "float16", "uint8"] = Field(
        "uint8", description="How pixels are kept; uint8 clips them to the valid range. Published: float32."
    )


class VaeOptions(AnyMemoryOptions):
    """Generative pseudo replay: a VAE models what the generator ever produced; its decoder is the memory."""

    name: Literal["vae"] = Field("vae", exclude=True)
    latent_dim: Annotated[int, Field(ge=1, le=4096)] = Field(248, description="Length of the code.")
    width: Annotated[int, Field(ge=1, le=512)] = Field(16, description="Channels of the decoder's last inner layer.")
    batch_size: Annotated[int, Field(ge=2, le=8192)] = Field(64, description="Novel images per update.")
    updates_per_round: Annotated[int, Field(ge=1, le=100)] = Field(4, description="VAE updates per round.")
    learning_rate: Positive = Field(3e-3, description="Adam, for encoder and decoder.")
    pixel_weight: Weight = Field(0.1, description="Weight of mean |reconstruction - image|.")
    logit_weight: Weight = Field(1.0, description="Weight of mean |T(reconstruction) - T(image)|.")
    feature_weight: Weight = Field(0.0, description="Weight of mean |feature difference|, where offered.")
    bn_weight: Weight = Field(0.0, description="Weight of the BatchNorm statistics of reconstructions, where offered.")
    kld_weight: Weight = Field(1e-5, description="Weight of the Kullback-Leibler divergence from N(0, I).")
    prior_match_weight: Weight = Field(
        0.0, description="Weight of confidence and balance on decoded prior samples (a leak in the published code)."
    )
    output: Literal["bounded", "standardised"] = Field(
        "standardised", description="bounded: the valid pixel range; standardised: tanh, then BatchNorm (published)."
    )
    prior: Literal["standard", "fitted"] = Field(
        "fitted", description="standard: replay decodes N(0, I); fitted: a Gaussian per class, fitted to the codes."
    )
    self_replay_share: Fraction = Field(0.2, description="Decoded images among those that an update learns from.")
    inference_steps: Annotated[int, Field(ge=0, le=100)] = Field(
        1, description="Adam steps that balance a replayed batch's codes over the classes."
    )
    inference_learning_rate: Positive = Field(0.02, description="Step size of that inference.")
    agreement_gate: Fraction = Field(
        0.5, description="Replay starts when the teacher gives this share of reconstructions the image's class."
    )
    batchnorm_eps: Positive = Field(1e-5, description="Epsilon of the BatchNorms; the published code has 0.8.")
    encoder: Literal["strided", "published"] = Field(
        "strided", description="strided: down-samples in its convolutions; published: full resolution, column norm."
    )


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "ring": {"paper-reconstructed": {"push_rounds": 5 * 36, "first_push_rounds": 36, "storage": "float32"}},
}
"""Settings in the papers of memories, beside the methods whose own memory they are not."""
