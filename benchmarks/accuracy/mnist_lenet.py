r"""LeNet-5 to half LeNet-5 on MNIST from random weights: the pair of the replay papers. See benchmarks/pair.py.

    python -m benchmarks.accuracy.mnist_lenet                       seeds 0, 1, 2 with the menu's defaults
    python -m benchmarks.accuracy.mnist_lenet --threads 1 --set distillation.procedural.share=0 \
        --set distillation.method_options.latent_dim=1024 --set distillation.training.fresh_batches=8 \
        --output benchmarks/results/mnist_lenet_without_procedural.json

Images are padded from 28 to 32 pixels; published figures (DAFL 98.2, DFAD 98.3, with other teachers) were made with
resized ones.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.pair import RESULTS, Pair, add_arguments, run_pair
from dfkd_core.sandbox.process_tuning import ensure_tuned


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--output", type=Path, default=RESULTS / "mnist_lenet.json")
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    pair = Pair("mnist-lenet5", "lenet5_half", ["student.init=random", *arguments.set])
    run_pair(pair, arguments.seeds, threads=arguments.threads, output=arguments.output, at_once=arguments.at_once)


if __name__ == "__main__":
    main()
