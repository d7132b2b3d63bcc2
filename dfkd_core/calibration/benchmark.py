"""Measures one machine in a few seconds: everything that the estimate of a job's time needs."""

import resource
import time
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from dfkd_core.calibration.kernels import bf16_factor, call_seconds, kernel_speeds
from dfkd_core.calibration.passes import pass_speeds
from dfkd_core.calibration.precision import bf16_tries
from dfkd_core.interface import plain_interface
from dfkd_core.networks.teacher import InputSpace
from dfkd_core.output.onnx_export import export_onnx
from dfkd_core.planning.worker_speed import WorkerSpeed


def measure(device: torch.device, *, threads: int) -> WorkerSpeed:
    """Return the speed of this device with `threads` intra-op threads."""
    import_module("dfkd_core.pipeline")  # what a runner loads counts as time and memory that every job needs
    start_seconds = time.process_time()  # importing keeps one core busy, and others on the machine do not change this
    torch.set_num_threads(threads)
    is_gpu = device.type == "cuda"
    forward, gradient = call_seconds(device)
    export_seconds = _export_seconds()
    base_bytes = resident_bytes()
    return WorkerSpeed(
        device=torch.cuda.get_device_name(device) if is_gpu else "cpu",
        threads=threads,
        build=build(device),
        kernels=kernel_speeds(device),
        passes=pass_speeds(device),
        call_seconds=forward,
        call_gradient_seconds=gradient,
        bf16_factor=bf16_factor(device),
        bf16_tries=bf16_tries(device),
        start_seconds=start_seconds,
        export_seconds=export_seconds,
        base_bytes=base_bytes,
        device_bytes=torch.cuda.get_device_properties(device).total_memory if is_gpu else None,
    )


def _export_seconds() -> float:
    """Return the processor seconds of a first, small export, which loads the libraries that exports need."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 2)).eval()
    started = time.process_time()
    with TemporaryDirectory(prefix="dfkd-") as directory:
        space = InputSpace((1, 8, 8), (-1.0,), (1.0,), range_known=True)
        export_onnx(network, Path(directory) / "student.onnx", plain_interface(2), space)
    return time.process_time() - started


def build(device: torch.device) -> str:
    """Return PyTorch's version with the instruction set, and for a GPU with CUDA's version."""
    used = f"cuda {torch.version.cuda}" if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {used}"


def resident_bytes() -> int:
    """Return the largest resident memory that this process has had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
