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
        "conv-4": _kernel(24, 19, 24),
        "conv-16": _kernel(130, 98, 100),
        "conv-64": _kernel(170, 120, 90),
        "conv-256": _kernel(130, 120, 95),
        "pointwise-4": _kernel(8.6, 5.6, 7.4),
        "pointwise-16": _kernel(53, 24, 27),
        "pointwise-64": _kernel(120, 57, 54),
        "pointwise-256": _kernel(130, 110, 92),
        "depthwise": _kernel(29, 18, 19),
        "matmul-64": _kernel(97, 58, 57),
        "matmul-256": _kernel(120, 91, 83),
    },
    passes={
        Pass.ACTIVATION: 5.7e9,
        Pass.ACTIVATION_GRADIENT: 2.5e9,
        Pass.NORM: 1.3e9,
        Pass.NORM_GRADIENT: 8.1e8,
        Pass.FROZEN_NORM: 3.8e9,
        Pass.FROZEN_NORM_GRADIENT: 8.3e8,
        Pass.MOMENTS: 9.0e8,
        Pass.DRAWN: 2.2e7,
        Pass.AUGMENTED: 6.6e7,
        Pass.GATHERED: 7.5e8,
        Pass.ADAM: 4.5e8,
    },
    call_seconds=1.5e-5,
    call_gradient_seconds=4.2e-5,
    bf16_factor=2.8,
    start_seconds=1.9,
    export_seconds=3.2,
    base_bytes=428_000_000,
)
"""Measured on two cores of an Intel Xeon with AVX-512: `python -m dfkd_core.calibration --threads 2`."""
