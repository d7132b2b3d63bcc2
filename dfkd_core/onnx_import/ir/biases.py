"""Matrix products with a constant matrix whose only use is the addition of a constant vector: linear layers."""

from dfkd_core.onnx_import.ir.plan import Array, Plan, Step


def biases_of(plan: Plan) -> tuple[dict[int, tuple[str, str]], set[int]]:
    """Find the matrix products whose only use is the addition of a constant vector.

    Return step number of the product → (name of the sum, name of the vector), and the step numbers of the additions.
    """
    uses = plan.consumers()
    makers = {name: number for number, step in enumerate(plan.steps) for name in step.outputs if step.op == "MatMul"}
    biases: dict[int, tuple[str, str]] = {}
    absorbed: set[int] = set()
    for number, step in enumerate(plan.steps):
        if step.op != "Add":
            continue
        for product, constant in (step.inputs, step.inputs[::-1]):
            maker = makers.get(str(product))
            if maker is None or constant not in plan.constants or uses[str(product)] != 1:
                continue
            if _is_bias(plan.constants[str(constant)], plan.steps[maker], plan):
                biases[maker] = (step.outputs[0], str(constant))
                absorbed.add(number)
                break
    return biases, absorbed


def _is_bias(array: Array, product: Step, plan: Plan) -> bool:
    matrix = plan.constants.get(str(product.inputs[1]))
    return matrix is not None and matrix.ndim == 2 and array.shape == matrix.shape[-1:]
