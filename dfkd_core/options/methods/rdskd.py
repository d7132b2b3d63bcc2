"""Options and published settings of `rdskd` (torch-free)."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dfkd_core.options.field_types import Weight
from dfkd_core.options.generators import BalanceWeight, GeneratorOptions, OnehotWeight
from dfkd_core.options.published import Presets, published

PAPER: dict[str, Any] = published(
    {
        "budget": {"steps": 1000 * 120},
        "training": {
            "optimizer": "adam",
            "learning_rate": 2e-3,
            "weight_decay": 0.0,
            "decay": "none",  # published for CIFAR-10: a tenth after 800 of 1000 epochs
            "batch_size": 512,
            "loss": "kl",
            "temperature": 10.0,
        },
        "steadiness": {"consolidation": 1.0},  # the generator is frozen from the first student step
        "method_options": {
            "latent_dim": 1000,
            "width": 64,
            "batch_size": 512,
            "updates_per_round": 1,
            "warmup_rounds": 20 * 120,
            "learning_rate": 1e-3,
            "onehot_weight": 1.0,
            "balance_weight": 1.0,
            "diversity_weight": 1.0,
            "diversity": "batch",
            "increments": True,
            "epoch_updates": 120,
            "reference_update": 1,
            "sampling": "running",
            "batchnorm_eps": 0.8,
        },
    }
)
"""The settings of the official code for SVHN and CIFAR-10; for MNIST its latent_dim is 100."""

DEFAULT: dict[str, Any] = {
    "memory": "reservoir",  # the generator does not change any more, so that its images need not be made anew
    "training": {"replay_share": 0.8, "final_replay_share": 0.8, "replays_per_round": 1024, "fresh_batches": 2},
    "steadiness": {"consolidation": 1.0},
}


class RdskdOptions(GeneratorOptions):
    """RDSKD's generator (Han et al., ICASSP 2021): it learns alone, then stays as it is while the student learns."""

    presets: ClassVar[Presets] = {"default": DEFAULT, "paper": PAPER}

    name: Literal["rdskd"] = Field("rdskd", exclude=True)
    updates_per_round: Annotated[int, Field(ge=1, le=1000)] = Field(
        20, description="Updates of the generator per round; all are in the warm-up, after which the presets freeze it."
    )
    onehot_weight: OnehotWeight = 1.0
    balance_weight: BalanceWeight = 1.0
    diversity_weight: Weight = Field(1.0, description="Weight of the distance of answers over that of images.")
    diversity: Literal["pair", "batch"] = Field(
        "pair", description="pair: mean over pairs of images; batch: one ratio of norms of half batches (published)."
    )
    increments: bool = Field(True, description="Confidence and balance enter as exp(loss - reference).")
    epoch_updates: Annotated[int, Field(ge=1, le=100_000)] = Field(
        120, description="Updates after which the references are taken anew."
    )
    reference_update: Annotated[int, Field(ge=0, le=100_000)] = Field(
        1, description="The update of each epoch, counted from 0, whose losses become the references."
    )
    sampling: Literal["batch", "running"] = Field(
        "batch", description="BatchNorm statistics of the images that the student sees; published: running."
    )

    @model_validator(mode="after")
    def _reference_within_the_epoch(self) -> Self:
        if self.reference_update >= self.epoch_updates:
            raise ValueError("reference_update must be below epoch_updates")
        return self
