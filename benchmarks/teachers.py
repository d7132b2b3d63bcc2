"""Demonstration teachers, trained on real data once and cached outside the repository.

python -m benchmarks.teachers [NAME ...]     trains those that are not in the cache, and prints their accuracy
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.datasets import NORMALISATIONS, LabelledImages, load_images
from dfkd_core.architectures import describe
from dfkd_core.images.augment import augment
from dfkd_core.networks.teacher import InputSpace, Teacher
from dfkd_core.sandbox.process_tuning import ensure_tuned
from dfkd_core.spec.config import Augmentation
from dfkd_core.spec.teacher import InputSpec
from dfkd_core.students.build import Network, build_network

CACHE = Path(__file__).resolve().parent / ".cache"
SEED = 0
BATCH_SIZE = 128


@dataclass(frozen=True, slots=True)
class Recipe:
    """The training of one teacher: Adam or SGD with momentum, and a learning rate that falls to zero as a cosine."""

    dataset: str
    architecture: str
    epochs: int
    learning_rate: float
    weight_decay: float
    optimizer: str = "adam"
    shift: float = 0.0625  # two pixels of 32
    flip: bool = False
    warmup: float = 0.0  # share of the run in which the learning rate rises


RECIPES = {
    "mnist-lenet5": Recipe("mnist", "lenet5", 12, 2e-3, 1e-5),
    "fashion-lenet5": Recipe("fashion_mnist", "lenet5", 40, 2e-3, 1e-5, shift=0.04, flip=True),
    "mnist-resnet14": Recipe("mnist", "resnet14", 3, 0.1, 5e-4, optimizer="sgd", warmup=0.2),
    "fashion-resnet14": Recipe("fashion_mnist", "resnet14", 8, 0.1, 5e-4, optimizer="sgd", flip=True, warmup=0.2),
    "cifar10-resnet20": Recipe("cifar10", "resnet20", 15, 0.2, 5e-4, "sgd", shift=0.125, flip=True, warmup=0.2),
    "letters-resnet14": Recipe("letters", "resnet14", 6, 0.1, 5e-4, optimizer="sgd", warmup=0.2),
    "cifar10-resnet8": Recipe("cifar10", "resnet8", 12, 0.2, 5e-4, "sgd", shift=0.125, flip=True, warmup=0.2),
}


def load_demonstration_teacher(name: str) -> Teacher:
    """Return the teacher of a recipe, from the cache or trained now (two minutes to more than an hour on two cores)."""
    recipe = RECIPES[name]
    path = CACHE / f"{name}-seed{SEED}.safetensors"
    network = untrained(recipe)
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        train(network, load_images(recipe.dataset, "train"), recipe)
        CACHE.mkdir(exist_ok=True)
        save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, path)
    space = input_space(recipe.dataset)
    return Teacher(network.eval(), space, num_classes=10, classifier=network.classifier)


def untrained(recipe: Recipe) -> Network:
    """Return the recipe's network with random weights."""
    shape = NORMALISATIONS[recipe.dataset].shape
    description = describe(recipe.architecture, input_shape=shape, num_classes=10)
    return build_network(description, generator=torch.Generator().manual_seed(SEED))


def input_space(dataset: str) -> InputSpace:
    """Return the input space of the data set: shape, mean, standard deviation."""
    normalisation = NORMALISATIONS[dataset]
    shape = normalisation.shape
    spec = InputSpec(shape=list(shape), mean=list(normalisation.mean), std=list(normalisation.std))
    low, high = spec.pixel_bounds(normalisation.channels)
    return InputSpace(shape=shape, low=tuple(low), high=tuple(high), range_known=True)


def train(network: nn.Module, data: LabelledImages, recipe: Recipe) -> None:
    """Train with cross-entropy on real images that are shifted and, if the recipe says so, mirrored."""
    draws = torch.Generator().manual_seed(SEED)
    optimizer = _optimizer(network, recipe)
    batches = len(data.labels) // BATCH_SIZE
    steps = recipe.epochs * batches

    def rate(step: int) -> float:
        rising = recipe.warmup * steps
        return (
            (step + 1) / rising if step < rising else 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))
        )

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    low, high = input_space(recipe.dataset).bounds()
    changes = Augmentation(shift=recipe.shift, flip=recipe.flip, rotation=0.0, noise=0.0)
    network.to(memory_format=torch.channels_last)
    for epoch in range(recipe.epochs):
        order, last_loss = torch.randperm(len(data.labels), generator=draws), 0.0
        for chosen in order.split(BATCH_SIZE)[:batches]:
            images = augment(data.images[chosen], changes, low=low, high=high, generator=draws)
            images = images.to(memory_format=torch.channels_last)
            loss = F.cross_entropy(network.train()(images), data.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            last_loss = loss.item()
        print(f"epoch {epoch + 1} of {recipe.epochs}, last loss {last_loss:.3f}", flush=True)
    network.to(memory_format=torch.contiguous_format).eval()


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> Tensor:
    """Classes (N,) that a network in eval mode gives to images (N, C, H, W)."""
    return torch.cat([network(chunk).argmax(dim=1) for chunk in images.split(1000)])


def accuracy(network: nn.Module, data: LabelledImages) -> float:
    """Percent of images classified correctly."""
    return 100 * float((predict(network, data.images) == data.labels).double().mean())


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(RECIPES), metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    ensure_tuned(arguments.threads)
    torch.set_num_threads(arguments.threads)
    for name in arguments.names:
        teacher = load_demonstration_teacher(name)
        test = load_images(RECIPES[name].dataset, "test")
        print(f"{name}, test images of {RECIPES[name].dataset}: {accuracy(teacher, test):.2f} %", flush=True)


if __name__ == "__main__":
    main()
