"""Trains small teachers under several conventions for pixel values, and prints which convention their files show.

python -m benchmarks.input_space [--threads N] [--updates N] [--batch N]

Each teacher is a `resnet8` of half width that learns a data set for one short run; of some, the BatchNorms are then
folded away. A LeNet-5 never had any; it learns for ten times as many updates. Nothing is told of their pixels. A
convention counts as found if it is the true one or gives pixels nearly the same values. Teachers are kept in
benchmarks/.cache, and results in benchmarks/results/input_space.json as they come; what is there is not measured again
without --again. Real images train the teachers; no estimate sees them.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.datasets import NORMALISATIONS, SIDE, load_images
from benchmarks.hardware import describe_hardware
from benchmarks.pair import fold
from dfkd_core.architectures import describe
from dfkd_core.architectures.layers import NetworkDescription
from dfkd_core.input_estimate import InputEstimate
from dfkd_core.inspection.input_space.conventions import COLOUR, EVERYWHERE, GREY, Convention, are_alike
from dfkd_core.inspection.input_space.estimate import estimate_input
from dfkd_core.narrowing.catalogue import plan_of
from dfkd_core.networks.teacher import InputSpace, Teacher
from dfkd_core.sandbox.process_tuning import ensure_tuned
from dfkd_core.students.build import Network, build_network

CACHE = Path(__file__).resolve().parent / ".cache"
RESULTS = Path(__file__).resolve().parent / "results" / "input_space.json"
CONVENTIONS = {one.name: one for one in (*EVERYWHERE, *GREY, *COLOUR)}


@dataclass(frozen=True, slots=True)
class Trained:
    """One teacher to train, and the convention for its pixels."""

    dataset: str
    convention: str
    architecture: str = "resnet8"
    width: float = 0.5
    seed: int = 0
    longer: int = 1  # how many times as many updates as the others it learns for

    @property
    def name(self) -> str:
        """Its name in tables and in the cache."""
        return f"{self.dataset}-{self.architecture}-{self.convention}-{self.seed}"


KEPT = (
    Trained("mnist", "zero-one"),
    Trained("mnist", "minus-one-one"),
    Trained("mnist", "mnist"),
    Trained("cifar10", "cifar10"),
    Trained("fashion_mnist", "fashion-mnist"),
    Trained("cifar10", "zero-one"),
    Trained("fashion_mnist", "zero-one"),
    Trained("cifar10", "minus-one-one"),
    Trained("fashion_mnist", "bytes"),
    Trained("cifar10", "bytes"),
)
FOLDED = KEPT
WITHOUT = tuple(
    Trained(dataset, convention, "lenet5", 1.0, seed, longer=10)
    for dataset, own in (("mnist", "mnist"), ("fashion_mnist", "fashion-mnist"), ("cifar10", "cifar10"))
    for seed, convention in enumerate(("zero-one", "minus-one-one", "bytes", own))
)


def values(dataset: str, split: str, convention: Convention) -> tuple[Tensor, Tensor]:
    """Return the images (N, C, 32, 32) of a data set with the values of a convention, and their labels (N,)."""
    data, usual = load_images(dataset, split), NORMALISATIONS[dataset]
    mean, std = (torch.tensor(numbers).view(1, -1, 1, 1) for numbers in (usual.mean, usual.std))
    low, high = (torch.tensor(bound).view(1, -1, 1, 1) for bound in convention.bounds(usual.channels))
    return torch.lerp(low, high, data.images * std + mean), data.labels


def described(teacher: Trained) -> NetworkDescription:
    """Return the description of the teacher's network."""
    shape = (NORMALISATIONS[teacher.dataset].channels, SIDE, SIDE)
    return describe(teacher.architecture, input_shape=shape, num_classes=10, width=teacher.width)


def network_of(teacher: Trained, *, updates: int, batch: int) -> tuple[Network, float]:
    """Return the trained network, from the cache or trained now, and its accuracy on the test images in percent."""
    description, updates = described(teacher), teacher.longer * updates
    draws = torch.Generator().manual_seed(teacher.seed)
    network = build_network(description, generator=draws)
    path = CACHE / f"input-space-{teacher.name}-{updates}x{batch}.safetensors"
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        images, labels = values(teacher.dataset, "train", CONVENTIONS[teacher.convention])
        _train(network, images, labels, updates=updates, batch=batch, draws=draws)
        CACHE.mkdir(exist_ok=True)
        save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, path)
    images, labels = values(teacher.dataset, "test", CONVENTIONS[teacher.convention])
    with torch.no_grad():
        right = [network.eval()(chunk).argmax(1) for chunk in images[:2000].split(500)]
    return network, 100 * float((torch.cat(right) == labels[:2000]).double().mean())


def _train(
    network: nn.Module, images: Tensor, labels: Tensor, *, updates: int, batch: int, draws: torch.Generator
) -> None:
    """Train with cross-entropy and Adam, whose learning rate falls as a cosine."""
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: 0.5 * (1 + math.cos(math.pi * at / updates)))
    order = torch.cat([torch.randperm(len(labels), generator=draws) for _ in range(-(-updates * batch // len(labels)))])
    network.train()
    for chosen in order[: updates * batch].split(batch):
        loss = F.cross_entropy(network(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def estimate(teacher: Trained, network: Network, *, folded: bool) -> InputEstimate:
    """Return what the weights show, as an inspection finds it."""
    channels = NORMALISATIONS[teacher.dataset].channels
    description = described(teacher)
    if folded:
        space = InputSpace((channels, SIDE, SIDE), (0.0,) * channels, (1.0,) * channels, range_known=True)
        network = fold(Teacher(network, space, num_classes=10, classifier=None)).network  # type: ignore[assignment]
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return estimate_input(plan_of(description, tensors), folded=folded)


def examined(teacher: Trained, group: str, *, updates: int, batch: int) -> dict[str, Any]:
    """Train a teacher, and return what was found of it."""
    network, accuracy = network_of(teacher, updates=updates, batch=batch)
    started = time.process_time()
    found = estimate(teacher, network, folded=group == "folded")
    seconds = time.process_time() - started
    channels = NORMALISATIONS[teacher.dataset].channels
    right = are_alike(CONVENTIONS[found.convention], CONVENTIONS[teacher.convention], channels)
    return {
        "teacher": teacher.name,
        "group": group,
        "updates": teacher.longer * updates,
        "batch": batch,
        "accuracy": round(accuracy, 1),
        "true": teacher.convention,
        "right": right,
        "seconds": round(seconds, 2),
        "found": found.model_dump(mode="json"),
    }


def show(row: dict[str, Any]) -> None:
    """Print one row."""
    found = row["found"]
    figures = "" if found["distance"] is None else f"{found['distance']} on {found['pictures']}, "
    following = f"next {found['next_convention']} {found['next_distance'] or ''}".rstrip()
    said = f"{found['convention']} ({found['certainty']}, {found['basis']}), {figures}{following}"
    mark = "right" if row["right"] else "WRONG"
    print(
        f"{row['group']:8} {row['teacher']:44} {row['accuracy']:5.1f} %  {mark}  {said}  {row['seconds']} s", flush=True
    )


def main() -> None:
    """Train what is missing, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--updates", type=int, default=150, help="of each teacher's training")
    parser.add_argument("--batch", type=int, default=64, help="images of one update")
    parser.add_argument("--again", action="store_true", help="measure what is in the results too")
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    rows = [] if arguments.again or not RESULTS.exists() else json.loads(RESULTS.read_text())["teachers"]
    known = {(row["teacher"], row["group"]) for row in rows}
    for row in rows:
        show(row)
    for group, teachers in (("kept", KEPT), ("folded", FOLDED), ("without", WITHOUT)):
        for teacher in teachers:
            if (teacher.name, group) in known:
                continue
            rows.append(examined(teacher, group, updates=arguments.updates, batch=arguments.batch))
            show(rows[-1])
            document = {"hardware": describe_hardware(), "teachers": rows}
            RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for group in ("kept", "folded", "without"):
        of_group = [row["right"] for row in rows if row["group"] == group]
        print(f"{group}: {sum(of_group)} of {len(of_group)} right")


if __name__ == "__main__":
    main()
