"""The speed of a worker that need not measure it, which would take ten seconds of a core while tests run."""

from pathlib import Path

from jobs.settings import Settings
from tests.builders import worker_speed
from worker.measurement import Measurement


def keep_speed(data_dir: Path) -> None:
    """Leave the speed of a worker with one thread where a worker with this data directory keeps its own."""
    data_dir.mkdir(parents=True, exist_ok=True)
    settings = Settings(data_dir=data_dir, worker_threads=1, worker_device="cpu")
    Measurement(settings)._keep(worker_speed(threads=1))
