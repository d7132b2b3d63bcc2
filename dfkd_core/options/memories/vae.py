"""Options of the memory `vae` (torch-free)."""

from typing import Annotated, Literal

from pydantic import Field

from dfkd_core.options.base import ReplayOptions
from dfkd_core.options.field_types import Fraction, Positive, Weight
from dfkd_core.options.passes import Direction, Network, Passes, Rehearsal, passes


class VaeOptions(ReplayOptions):
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

    def run_passes(self, rehearsal: Rehearsal, offers: frozenset[str]) -> list[Passes]:
        """Return the passes of all updates and replays, as if every replay passed the `agreement_gate`."""
        updates = rehearsal.remembered * self.updates_per_round
        if not updates:
            return []
        novel = min(rehearsal.fresh, self.batch_size)
        own = self.rehearsed(novel)
        asked = rehearsal.replays - rehearsal.starts_empty
        return [
            *self._update_passes(novel, times=1, offers=offers),  # nothing can be rehearsed before the first update
            *self._update_passes(novel + own, times=updates - 1, offers=offers),
            *self._decoding_passes(own, times=updates - 1),
            *self._decoding_passes(rehearsal.replayed, times=asked),
        ]

    def largest_batch(self, replayed: int) -> int:
        """Return the images of an update or of a replay."""
        return max(self.batch_size + self.rehearsed(self.batch_size), replayed)

    def rehearsed(self, novel: int) -> int:
        """Return the number of decoded images beside `novel` new ones in an update."""
        return round(novel * self.self_replay_share / max(1e-6, 1 - self.self_replay_share))

    def _update_passes(self, images: int, *, times: int, offers: frozenset[str]) -> list[Passes]:
        found = [
            passes(Network.ENCODER, Direction.TO_WEIGHTS, images, times=times),
            passes(Network.DECODER, Direction.TO_WEIGHTS, images, times=times),
            passes(Network.TEACHER, Direction.TO_INPUT, images, times=times),
        ]
        if self.feature_weight and "features" in offers:
            found.append(passes(Network.TEACHER, Direction.FORWARD, images, times=times))
        return [*found, *(found[1:3] if self.prior_match_weight else [])]

    def _decoding_passes(self, images: int, *, times: int) -> list[Passes]:
        """Return the passes that decode balanced codes and label the images."""
        if not images:
            return []
        networks, steps = (Network.DECODER, Network.TEACHER), self.inference_steps if images > 1 else 0
        return [
            *(passes(network, Direction.TO_INPUT, images, times=times * steps) for network in networks),
            *(passes(network, Direction.FORWARD, images, times=times) for network in networks),
        ]
