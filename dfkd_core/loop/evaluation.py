"""Scoring: what happens at an evaluation. BatchNorm is re-estimated, the probe is asked, the ratchet decides."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from dfkd_core.images.student_answers import answers
from dfkd_core.loop.probe import agrees
from dfkd_core.loop.state import Run
from dfkd_core.loop.student_batches import Pools, as_seen, mixed
from dfkd_core.networks.batchnorm import has_batchnorm, reestimate

BATCHNORM_BATCHES = 8
BATCHNORM_BATCH_SIZE = 128


@dataclass(frozen=True, slots=True)
class Scores:
    """Shares of the probe's images on which each student gives the teacher's class."""

    raw: float
    ema: float
    published: float
    published_step: int
    replaced: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def evaluate_on_probe(run: Run) -> Scores:
    """Score the student, its average and the published student on the current probe; publish the average if better."""
    if has_batchnorm(run.average.network):
        reestimate(run.average.network, _synthetic_mix(run))
    probe = run.probe.batch()
    raw = float(agrees(answers(run.student, probe), probe).double().mean())
    step = run.counters.steps
    verdict = run.ratchet.maybe_replace(
        run.average.network, probe, step=step, margin_scale=min(1.0, run.schedule.student_rate(step))
    )
    return Scores(
        raw=raw,
        ema=verdict.candidate,
        published=verdict.published,
        published_step=run.ratchet.published_step or 0,
        replaced=verdict.replaced,
    )


def _synthetic_mix(run: Run) -> list[Tensor]:
    """Batches of images as the student meets them in training, (N, C, H, W) each."""
    pools, draws = Pools.of(run), run.streams["batchnorm"]
    batches = (mixed(run, pools, BATCHNORM_BATCH_SIZE, generator=draws) for _ in range(BATCHNORM_BATCHES))
    return [as_seen(run, batch.images, generator=draws) for batch in batches]
