"""How long images take through a network on a worker of a measured speed (torch-free)."""

from dfkd_core.architectures.cost import Kind, NetworkCost, shares
from dfkd_core.options.passes import Direction, Passes
from dfkd_core.planning.sizes import FLOAT_BYTES, NetworkSize
from dfkd_core.planning.worker_speed import Pass, WorkerSpeed

NORMALISED = 0.3  # share of the values of a generator that batch normalisations read


def cost_of_size(size: NetworkSize, *, width: int) -> NetworkCost:
    """Return the cost of a generator, encoder or decoder: convolutions of `width` channels, each normalised."""
    values = size.activation_bytes // FLOAT_BYTES
    convolved = sum(values * share for share in (NORMALISED,))
    return NetworkCost(
        macs={kernel: round(size.macs * share) for kernel, share in shares(Kind.CONV, width).items()},
        elements=values - 2 * round(convolved),
        norm_elements=round(convolved),
        operations=size.operations,
        activations=values,
        largest=values // 3,
    )


def scaled_to(cost: NetworkCost, size: NetworkSize, *, of: NetworkSize) -> NetworkCost:
    """Return the cost of a network of `size` that has the layers of another network, which has the size `of`."""
    macs, values = size.macs / max(1, of.macs), size.activation_bytes / max(1, of.activation_bytes)
    return cost.scaled(macs=macs, activations=values)


def batch_seconds(
    cost: NetworkCost, passes: Passes, speed: WorkerSpeed, *, reads_moments: bool = False, multiply_faster: float = 1.0
) -> float:
    """Return the seconds of these passes.

    `reads_moments`: the statistics of every batch normalisation are read and differentiated. `multiply_faster`: the
    factor by which multiply-adds are faster than in fp32.
    """
    trains, differentiates = passes.direction is Direction.TO_WEIGHTS, passes.direction is not Direction.FORWARD
    multiplied = 0.0
    for kernel, count in cost.macs.items():
        known = speed.kernels[kernel]
        multiplied += count / known.forward
        multiplied += count / known.input_gradient if differentiates else 0.0
        multiplied += count / known.weight_gradient if trains else 0.0
    rates, calls = speed.passes, cost.operations * speed.call_seconds
    norm, norm_gradient = Pass.FROZEN_NORM, Pass.FROZEN_NORM_GRADIENT
    if trains:
        norm, norm_gradient = Pass.NORM, Pass.NORM_GRADIENT
    values = cost.elements / rates[Pass.ACTIVATION] + cost.norm_elements / rates[norm]
    if differentiates:
        values += cost.elements / rates[Pass.ACTIVATION_GRADIENT] + cost.norm_elements / rates[norm_gradient]
        values += cost.norm_elements / rates[Pass.MOMENTS] if reads_moments else 0.0
        calls += cost.operations * speed.call_gradient_seconds
    return passes.images * (multiplied / multiply_faster + values) + passes.batches * calls
