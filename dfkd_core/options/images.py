"""The options that all methods share which optimise their images one batch at a time (torch-free)."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dfkd_core.options.base import Shape, SynthesisOptions
from dfkd_core.options.field_types import Fraction, Positive, Weight
from dfkd_core.options.kinds import COSTS, KindName
from dfkd_core.options.passes import Direction, Network, Passes, passes
from dfkd_core.options.published import NOTHING_OF_OURS, merged

COARSE_COST = 0.25  # of a step at half the height and width, in steps of full images


def halved(shape: Sequence[int]) -> tuple[int, int]:
    """Return half the height and width of images (C, H, W)."""
    return shape[1] // 2, shape[2] // 2


class ImageOptions(SynthesisOptions):
    """Each update makes one batch of images in `steps` steps of Adam."""

    optimises_images: ClassVar[bool] = True

    batch_size: Annotated[int, Field(ge=8, le=8192)] = Field(128, description="Images that one update makes.")
    warmup_rounds: Annotated[int, Field(ge=0, le=100_000)] = Field(
        16, description="Rounds that build the first images, before the first student update."
    )
    steps: Annotated[int, Field(ge=1, le=100_000)] = Field(80, description="Adam steps for a batch of images.")
    learning_rate: Positive = Field(0.08, description="Learning rate of Adam.")
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = Field(
        [0.5, 0.9], description="Decay rates of Adam's two moments."
    )
    decay: Literal["cosine", "none"] = Field("cosine", description="Decay of the learning rate within each batch.")
    keep: Literal["last", "best"] = Field(
        "last", description="Which images of a batch's steps are kept: the last, or those of the lowest loss."
    )
    shift: Annotated[int, Field(ge=0, le=64)] = Field(
        2, description="Largest shift of the images before the teacher sees them, in pixels; edges are repeated."
    )
    flip: bool = Field(False, description="Mirror the batch in half of the steps.")
    target_weight: Weight = Field(1.0, description="Weight of the cross-entropy with the batch's targets.")
    bn_weight: Weight = Field(1.0, description="Weight of the BatchNorm statistics, where offered.")
    smoothness_weight: Weight = Field(0.0, description="Weight of the total variation of the images.")
    l2_weight: Weight = Field(0.0, description="Weight of the mean norm of an image.")
    adv_weight: Weight = Field(0.0, description="Weight of the student's feedback, after the warm-up.")
    adv_limit: Positive = Field(0.5, description="What one image's feedback counts at most.")

    def update_passes(self, shape: Shape, *, feedback: bool) -> list[Passes]:
        """Return the teacher's passes, one for each step, and the student's if its feedback has a weight."""
        networks = [Network.TEACHER, *([Network.STUDENT] if feedback and self.adv_weight else [])]
        return [passes(network, Direction.TO_INPUT, self.batch_size, times=self.steps) for network in networks]


class PixelOptions(ImageOptions):
    """The method optimises the pixels of its images."""

    valid_range: bool = Field(True, description="Put pixels back into the valid range after every step.")
    start: Literal["smooth", "normal", KindName] = Field(
        "smooth",
        description="smooth: random values, blurred, in the valid range; normal: N(0, 1) (published); shapes, scenes, "
        "marks, figures: procedural images of that kind.",
    )
    start_scale: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="Distance of independent values of a smooth start, in pixels."
    )
    smoothness: Literal["mean", "norm"] = Field(
        "mean", description="mean: absolute differences of neighbours; norm: the published form, over the whole batch."
    )

    def update_drawn(self) -> float:
        """Return the cost of the images with which the optimisation starts."""
        return self.batch_size * COSTS.get(self.start, 0.0)


class RedrawnOptions(ImageOptions):
    """The method optimises the weights and latent codes of a small generator, which is drawn anew for each batch."""

    steps: Annotated[int, Field(ge=1, le=100_000)] = Field(40, description="Adam steps for a batch of images.")
    latent_dim: Annotated[int, Field(ge=1, le=4096)] = Field(128, description="Length of an image's code.")
    width: Annotated[int, Field(ge=1, le=512)] = Field(8, description="Channels of the last inner convolution.")
    learning_rate: Positive = Field(0.01, description="Learning rate of Adam for the generator's weights.")
    code_learning_rate: Positive = Field(
        0.05, description="Learning rate of Adam for the codes; published: as the weights."
    )
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = Field(
        [0.5, 0.999], description="Decay rates of Adam's two moments."
    )
    keep: Literal["last", "best"] = Field(
        "best", description="Which images of a batch's steps are kept: the last, or those of the lowest loss."
    )
    bn_past: Fraction = Field(
        0.0, description="Share of the earlier batches in the statistics that are matched, with this decay; 0: none."
    )
    batchnorm_eps: Positive = Field(1e-5, description="Epsilon of the generator's BatchNorms.")
    output: Literal["bounded", "standardised"] = Field(
        "bounded", description="bounded: the teacher's valid pixel range; standardised: tanh, then BatchNorm."
    )

    def update_passes(self, shape: Shape, *, feedback: bool) -> list[Passes]:
        """Return the passes of every method that optimises images, and those of the generator before the teacher's."""
        ends = 1 if self.keep == "best" else 2  # images before the first step and, where the last are kept, after it
        return [
            *super().update_passes(shape, feedback=feedback),
            passes(Network.GENERATOR, Direction.TO_WEIGHTS, self.batch_size, times=self.steps),
            passes(Network.GENERATOR, Direction.FORWARD, self.batch_size, times=ends),
        ]


BANK: dict[str, Any] = {
    "memory": "reservoir",
    "memory_options": {"capacity": 20_000},
    "training": {
        "updates_per_round": 200,
        "fresh_batches": 1,
        "fresh_rounds": 2,
        "replays_per_round": 1024,
        "replay_share": 0.8,
        "final_replay_share": 0.8,
        "augmentation": {"mixup": 0.5, "contrast": 0.5, "brightness": 0.3},  # few images must go a long way
    },
}
"""Loop settings for images that are costly to make: few rounds with many student updates, most on stored images."""

OFFLINE: dict[str, Any] = merged(
    BANK,
    {"training": {"replay_share": 1.0, "final_replay_share": 1.0}, "steadiness": {"consolidation": 1.0}},
)
"""Loop settings that make all images during the warm-up; afterwards only the student is trained."""

PUBLISHED: dict[str, Any] = merged(
    NOTHING_OF_OURS,
    {
        "memory": "reservoir",
        "training": {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "replay_share": 1.0,  # the newest images are in the bank too, at most one among many
            "final_replay_share": 1.0,
            "replays_per_round": 20_000,
            "loss": "kl",
            "temperature": 20.0,
        },
    },
)
"""Settings that the publications share: the student learns with SGD and KL at temperature 20 on stored images."""

TRANSFER_SET: dict[str, Any] = merged(
    PUBLISHED,
    {
        "budget": {"steps": 500 * 375},  # epochs of 24 000 images
        "training": {
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "decay": "none",
            "batch_size": 64,
            "updates_per_round": 375,
        },
        "steadiness": {"consolidation": 1.0},  # the images come before the student
        "memory_options": {"capacity": 24_000},
        "method_options": {
            "batch_size": 100,
            "warmup_rounds": 240,
            "steps": 1500,
            "learning_rate": 1e-3,
            "betas": [0.9, 0.999],
            "decay": "none",
            "keep": "last",
            "shift": 0,
            "flip": False,
            "start": "normal",
            "valid_range": True,
            "bn_weight": 0.0,
            "smoothness_weight": 0.0,
        },
    },
)
"""Settings for a fixed set of images, made before the student learns (Nayak et al., ICML 2019, and its code)."""

CROP_AND_FLIP: dict[str, Any] = {"shift": 0.125, "flip": True}
"""Shifts by up to four of 32 pixels, as the authors' toolboxes train their students."""

PUBLISHED_REDRAWN: dict[str, Any] = merged(
    PUBLISHED,
    {
        "training": {"augmentation": CROP_AND_FLIP},
        "method_options": {
            "width": 64,
            "betas": [0.5, 0.999],
            "decay": "none",
            "keep": "best",
            "shift": 4,
            "flip": True,
            "output": "bounded",
        },
    },
)
"""The published settings of the methods that draw a generator for each batch; their codes descend from one another."""
