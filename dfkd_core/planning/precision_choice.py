"""Which precision a run computes in where its spec leaves that to the worker (torch-free).

A worker tries bfloat16 three times before it takes its first such job. What the tries measured is a fact of the worker,
so the precision is decided before a run begins, and nothing else of the run follows from the worker's speed.
"""

from collections.abc import Iterable, Sequence

from dfkd_core.architectures.cost import Kind, NetworkCost
from dfkd_core.planning.worker_speed import WorkerSpeed
from dfkd_core.report import PrecisionFacts
from dfkd_core.spec.compute import AUTO_PRECISION, Precision
from dfkd_core.spec.config import DistillConfig

TRIES = 3
LEAST_GAIN = 1.3
"""bfloat16 has to be this many times faster in every try: a smaller gain is not worth its coarser numbers."""
MOST_DEPTHWISE = 0.01
"""Share of a network's multiply-adds. On a CPU, the gradient of a depthwise convolution is far slower in bfloat16."""


def bf16_pays(tries: Sequence[float]) -> bool:
    """Return whether bfloat16 was fast enough in all tries; False if nothing was tried."""
    return len(tries) >= TRIES and min(tries) >= LEAST_GAIN


def are_depthwise(networks: Iterable[NetworkCost]) -> bool:
    """Return whether depthwise convolutions make up more than a little of one of these networks."""
    return any(each.macs.get(Kind.DEPTHWISE, 0) > MOST_DEPTHWISE * sum(each.macs.values()) for each in networks)


def measured_precision(tries: Sequence[float]) -> Precision:
    """Return the precision that a worker with these tries chooses."""
    return "bf16" if bf16_pays(tries) else "fp32"


def choose_precision(
    asked: str, *, tries: Sequence[float] = (), recorded: Precision | None = None, depthwise: bool = False
) -> PrecisionFacts:
    """Return the precision of a run and the reason for it.

    `asked` is what the spec says, `tries` are those of the worker, and `recorded` is the precision of the checkpoint
    from which the run goes on. `depthwise`: the run is on a CPU, and `are_depthwise` its networks.
    """
    if asked != AUTO_PRECISION:
        return PrecisionFacts(value="bf16" if asked == "bf16" else "fp32", because="asked")
    if recorded is not None:
        return PrecisionFacts(value=recorded, because="checkpoint")
    if not tries:
        return PrecisionFacts(value="fp32", because="not-measured")
    if depthwise and bf16_pays(tries):
        return PrecisionFacts(value="fp32", because="depthwise")
    return PrecisionFacts(
        value=measured_precision(tries), because="measured", bf16_tries=[round(factor, 3) for factor in tries]
    )


def computed_on(config: DistillConfig, speed: WorkerSpeed, networks: Iterable[NetworkCost]) -> DistillConfig:
    """Return the config with the precision that a worker of this speed would choose for teacher and student."""
    depthwise = speed.device == "cpu" and are_depthwise(networks)
    return config.computed_in(choose_precision(AUTO_PRECISION, tries=speed.bf16_tries, depthwise=depthwise).value)
