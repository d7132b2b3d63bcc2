"""The speed of two ordinary cores, which stands for that of a worker that has not been measured (torch-free).

Only the proportions between the phases of a job are read from it: as soon as one phase was measured, the others are
corrected by its factor.
"""

from dfkd_core.planning.worker_speed import KernelSpeed, Pass, WorkerSpeed


def _kernel(forward: float, input_gradient: float, weight_gradient: float) -> KernelSpeed:
    """Return the speed of a kernel from thousands of millions of multiply-adds a second."""
    return KernelSpeed(
        forward=forward * 1e9, input_gradient=input_gradient * 1e9, weight_gradient=weight_gradient * 1e9
    )


REFERENCE = WorkerSpeed(
    device="cpu",
    threads=2,
    build="torch 2.13.0+cpu, AVX512",
    kernels={
        "conv-16": _kernel(104, 95, 16),
        "conv-64": _kernel(134, 122, 100),
        "conv-256": _kernel(133, 102, 91),
        "pointwise-16": _kernel(65, 50, 2.3),
        "pointwise-64": _kernel(115, 106, 19),
        "pointwise-256": _kernel(121, 120, 101),
        "depthwise": _kernel(51, 20, 25),
        "matmul-64": _kernel(50, 47, 45),
        "matmul-256": _kernel(56, 51, 50),
    },
    passes={
        Pass.ACTIVATION: 1.07e10,
        Pass.ACTIVATION_GRADIENT: 6.1e9,
        Pass.NORM: 2.2e9,
        Pass.NORM_GRADIENT: 1.8e9,
        Pass.FROZEN_NORM: 5.0e9,
        Pass.FROZEN_NORM_GRADIENT: 1.0e9,
        Pass.MOMENTS: 1.9e9,
        Pass.DRAWN: 6.5e7,
        Pass.AUGMENTED: 1.2e8,
        Pass.GATHERED: 1.7e9,
        Pass.ADAM: 7.6e8,
    },
    call_seconds=1.2e-5,
    call_gradient_seconds=4.5e-5,
    bf16_factor=2.0,
    start_seconds=1.2,
    export_seconds=2.0,
    base_bytes=424_000_000,
)
"""Measured on two cores of an AMD EPYC with AVX-512: `python -m dfkd_core.calibration --threads 2`."""
