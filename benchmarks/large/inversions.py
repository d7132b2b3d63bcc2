"""How far the inversion of a large trained teacher gets in its steps, without any student.

    python -m benchmarks.large.inversions cifar-resnet18 --variant bn_weight=1 --variant start=scenes,bn_weight=1
    python -m benchmarks.large.inversions text-direction --effort standard

NAME is a pair of `benchmarks.large.pairs`. A variant changes `method_options` of the spec that the service resolves; an
empty one changes nothing. Each makes a few images from the same seed, in fp32. The result says how far the images are
from the classes that they were made for (cross-entropy of the last step; ln K is chance), how far from the teacher's
BatchNorm statistics, and how many the teacher puts into each class. Where `--images` exceeds `compute.chunk` of the
spec, both distances are those of the last chunk. No real image is looked at.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.hardware import describe_run
from benchmarks.large.pair_tasks import TASKS
from benchmarks.large.pairs import asked_spec, changed
from benchmarks.pair import RESULTS
from dfkd_core.inspection.input_space.of_file import inspect_with_input_space
from dfkd_core.inspection.inspection import parse_file
from dfkd_core.inspection.resolve import resolve
from dfkd_core.methods import build_synthesizer
from dfkd_core.rng import Streams
from dfkd_core.spec.config import DistillSpec, Effort
from dfkd_core.teachers import load_teacher


def invert(path: Path, spec: DistillSpec, *, images: int, seed: int) -> dict[str, Any]:
    """Make one batch of images and return what became of the losses and classes."""
    _, parsed = parse_file(path, spec.teacher)
    teacher = load_teacher(path, spec.teacher, parsed=parsed)
    method = build_synthesizer(spec.distillation, teacher, streams=Streams(seed), device=torch.device("cpu"))
    begun = time.process_time()
    losses = method.synthesize(None, rate=1.0)
    seconds = time.process_time() - begun
    with torch.no_grad():
        classes = teacher(method.sample(images, generator=Streams(seed)["fresh"])).argmax(dim=1)
    return {
        "cross_entropy": round(float(losses["target"]), 3),
        "batchnorm_distance": round(float(losses["bn"]), 1),
        "classes": torch.bincount(classes, minlength=teacher.num_classes).tolist(),
        "cpu_seconds": round(seconds, 1),
    }


def main() -> None:
    """Measure the variants, and write each as it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(TASKS))
    parser.add_argument("--variant", action="append", metavar="KEY=VALUE,...", help="may be given several times")
    parser.add_argument("--effort", choices=get_args(Effort), default="quick")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pair, output = TASKS[options.name], RESULTS / f"large-inversions-{options.name}.json"
    path = pair.teacher()
    asked = asked_spec(pair, effort=options.effort, seed=options.seed, settings=[])
    resolved = resolve(asked, inspect_with_input_space(path, asked.teacher)[0])[0]
    for variant in options.variant or [""]:
        settings = [f"batch_size={options.images}", *(part for part in variant.split(",") if part)]
        spec = changed(resolved, [f"distillation.method_options.{setting}" for setting in settings])
        found = invert(path, spec, images=options.images, seed=options.seed)
        print(variant or "as resolved", found, flush=True)
        results = json.loads(output.read_text()) if output.exists() else {}
        results[f"{variant or 'as resolved'}, seed {options.seed}"] = {
            **found,
            "method_options": spec.distillation.method_options.model_dump(mode="json"),
            **describe_run(options.threads),
        }
        output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
