"""Which precision a run computes in where its spec leaves that to the worker (torch-free).

A worker tries bfloat16 three times before it takes its first such job. What the tries measured is a fact of the worker,
so the precision is decided before a run begins, and nothing else of the run follows from the worker's speed.
"""

from collections.abc import Sequence

from dfkd_core.planning.worker_speed import WorkerSpeed
from dfkd_core.report import PrecisionFacts
from dfkd_core.spec.compute import AUTO_PRECISION, Precision
from dfkd_core.spec.config import DistillConfig

TRIES = 3
LEAST_GAIN = 1.3
"""bfloat16 has to be this many times faster in every try: a smaller gain is not worth its coarser numbers."""


def bf16_pays(tries: Sequence[float]) -> bool:
    """Return whether bfloat16 was fast enough in all tries; False if nothing was tried."""
    return len(tries) >= TRIES and min(tries) >= LEAST_GAIN


def measured_precision(tries: Sequence[float]) -> Precision:
    """Return the precision that a worker with these tries chooses."""
    return "bf16" if bf16_pays(tries) else "fp32"


def choose_precision(asked: str, *, tries: Sequence[float] = (), recorded: Precision | None = None) -> PrecisionFacts:
    """Return the precision of a run and the reason for it.

    `asked` is what the spec says, `tries` are those of the worker, and `recorded` is the precision of the checkpoint
    from which the run goes on.
    """
    if asked != AUTO_PRECISION:
        return PrecisionFacts(value="bf16" if asked == "bf16" else "fp32", because="asked")
    if recorded is not None:
        return PrecisionFacts(value=recorded, because="checkpoint")
    if not tries:
        return PrecisionFacts(value="fp32", because="not-measured")
    return PrecisionFacts(
        value=measured_precision(tries), because="measured", bf16_tries=[round(factor, 3) for factor in tries]
    )


def computed_on(config: DistillConfig, speed: WorkerSpeed) -> DistillConfig:
    """Return the config with the precision that a worker of this speed would choose."""
    return config.computed_in(measured_precision(speed.bf16_tries))
