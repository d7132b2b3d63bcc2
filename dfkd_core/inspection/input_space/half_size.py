"""Whether a network of large images takes images of half the height and width too, as far as NumPy can tell."""

import numpy as np

from dfkd_core.inspection.input_space.forward import NotComputable, compute, steps_towards
from dfkd_core.onnx_import.ir.plan import Plan
from dfkd_core.options.images import COARSE_COST, halved

MOST_MACS = 4e9  # of the smaller image: a few seconds of one core


def takes_half_size(plan: Plan) -> bool:
    """Return whether the network answers one smaller image with its classes; False too if that was not tried."""
    if COARSE_COST * plan.macs > MOST_MACS:
        return False
    steps = steps_towards(plan, [plan.output_name])
    image = np.zeros((1, plan.input_shape[0], *halved(plan.input_shape)), np.float32)
    try:
        answer = compute(plan, steps, image, [plan.output_name]).get(plan.output_name)
    except NotComputable:
        return False
    return answer is not None and answer.shape == (1, plan.num_classes) and bool(np.isfinite(answer).all())
