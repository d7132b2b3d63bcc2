"""`python -m dfkd_core.calibration --threads 2 --device cpu` prints the speed of this machine as JSON.

With `--precision` it prints only how many times faster bfloat16 is in each of three tries, which takes less time.
"""

import argparse
import json
import sys

from dfkd_core.sandbox.process_tuning import ensure_tuned


def main() -> None:
    """Measure with the settings of a runner: the process executes itself again if its environment is not tuned."""
    parser = argparse.ArgumentParser(prog="python -m dfkd_core.calibration", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", action="store_true", help="print only the tries of bfloat16")
    options = parser.parse_args()
    ensure_tuned(options.threads)
    import torch

    from dfkd_core.calibration.benchmark import measure
    from dfkd_core.calibration.precision import bf16_tries

    device = torch.device(options.device)
    if options.precision:
        torch.set_num_threads(options.threads)
        sys.stdout.write(json.dumps(bf16_tries(device)) + "\n")
    else:
        sys.stdout.write(measure(device, threads=options.threads).model_dump_json() + "\n")


if __name__ == "__main__":
    main()
