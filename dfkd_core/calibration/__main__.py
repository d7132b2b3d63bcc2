"""`python -m dfkd_core.calibration --threads 2 --device cpu` prints the speed of this machine as JSON."""

import argparse
import sys

from dfkd_core.sandbox.process_tuning import ensure_tuned


def main() -> None:
    """Measure with the settings of a runner: the process executes itself again if its environment is not tuned."""
    parser = argparse.ArgumentParser(prog="python -m dfkd_core.calibration", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    ensure_tuned(options.threads)
    import torch

    from dfkd_core.calibration.benchmark import measure

    sys.stdout.write(measure(torch.device(options.device), threads=options.threads).model_dump_json() + "\n")


if __name__ == "__main__":
    main()
