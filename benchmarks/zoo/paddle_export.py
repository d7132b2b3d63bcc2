"""Exports image classifiers of Paddle by Paddle2ONNX; nothing is downloaded.

    python3.11 -m venv pd && pd/bin/pip install paddlepaddle paddle2onnx packaging
    pd/bin/python -m benchmarks.zoo.paddle_export FOLDER

See benchmarks/zoo/shelf.py for what is written.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle2onnx
from paddle import nn
from paddle.vision import models

from benchmarks.zoo import shelf

CLASSES = 10
BATCHES = (1, 2, 5)
LARGE = 160  # images of this size or more are compared two at a time


@dataclass(frozen=True)
class Family:
    """A net and the images that it takes."""

    build: Callable[[], nn.Layer]
    shape: tuple[int, int, int] = (3, 32, 32)
    probabilities: bool = False


def plain(*ends: nn.Layer) -> nn.Layer:
    """Return a small net with `ends` behind its features (N, 16, 8, 8)."""
    features = [nn.Conv2D(3, 8, 3, padding=1, bias_attr=False), nn.BatchNorm2D(8), nn.Hardswish(), nn.MaxPool2D(2)]
    features += [nn.Conv2D(8, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2D(2)]
    return nn.Sequential(*features, *ends)


def enlarged(**options: Any) -> nn.Layer:
    """Return a small net whose features are enlarged to (N, 16, 16, 16)."""
    return plain(nn.Upsample(**options), nn.Conv2D(16, 8, 3), nn.Flatten(), nn.Linear(1568, CLASSES))


def transformer() -> nn.Layer:
    """Return a small vision transformer of Paddle's layers."""

    class Tokens(nn.Layer):
        def forward(self, maps: Any) -> Any:
            return maps.flatten(2).transpose([0, 2, 1])

    class Mean(nn.Layer):
        def forward(self, tokens: Any) -> Any:
            return tokens.mean(1)

    layer = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, activation="gelu", normalize_before=True)
    return nn.Sequential(
        nn.Conv2D(3, 32, 8, 8),
        Tokens(),
        nn.TransformerEncoder(layer, 2),
        nn.LayerNorm(32),
        Mean(),
        nn.Linear(32, CLASSES),
    )


HEAD = (nn.Flatten, lambda: nn.Linear(16 * 64, CLASSES))
FAMILIES: dict[str, Family] = {
    "lenet": Family(lambda: models.LeNet(CLASSES), (1, 28, 28)),
    "cnn": Family(lambda: plain(*(make() for make in HEAD))),
    "cnn-softmax": Family(lambda: plain(*(make() for make in HEAD), nn.Softmax()), probabilities=True),
    "adaptive": Family(lambda: plain(nn.AdaptiveAvgPool2D(2), nn.Flatten(), nn.Linear(64, CLASSES))),
    "group-norm": Family(lambda: plain(nn.GroupNorm(4, 16), nn.Swish(), *(make() for make in HEAD))),
    "instance-norm": Family(lambda: plain(nn.InstanceNorm2D(16), nn.Swish(), *(make() for make in HEAD))),
    "activations": Family(lambda: plain(nn.ELU(), nn.Silu(), nn.PReLU(), *(make() for make in HEAD))),
    "leaky-relu": Family(lambda: plain(nn.InstanceNorm2D(16), nn.LeakyReLU(0.1), *(make() for make in HEAD))),
    "enlarged": Family(lambda: enlarged(size=[16, 16], mode="bilinear")),
    "enlarged-nearest": Family(lambda: enlarged(size=[16, 16], mode="nearest")),
    "enlarged-by-a-factor": Family(lambda: enlarged(scale_factor=2, mode="bilinear")),
    "transposed": Family(lambda: plain(nn.Conv2DTranspose(16, 8, 2, 2), nn.Flatten(), nn.Linear(2048, CLASSES))),
    "pixel-shuffle": Family(lambda: plain(nn.PixelShuffle(2), *(make() for make in HEAD))),
    "transformer": Family(transformer),
    "mobilenet-v1": Family(lambda: models.MobileNetV1(0.25, CLASSES)),
    "mobilenet-v2": Family(lambda: models.MobileNetV2(0.25, CLASSES)),
    "mobilenet-v3": Family(lambda: models.MobileNetV3Small(0.35, CLASSES)),
    "shufflenet": Family(lambda: models.shufflenet_v2_x0_25(num_classes=CLASSES)),
    "shufflenet-swish": Family(lambda: models.ShuffleNetV2(0.25, "swish", CLASSES)),
    "squeezenet": Family(lambda: models.SqueezeNet("1.1", CLASSES), (3, 64, 64)),
    "resnet": Family(lambda: models.resnet18(num_classes=CLASSES), (3, 64, 64)),
    "resnext": Family(lambda: models.resnext50_32x4d(num_classes=CLASSES), (3, 64, 64)),
    "densenet": Family(lambda: models.DenseNet(121, num_classes=CLASSES), (3, 64, 64)),
    "resnet18-224": Family(lambda: models.resnet18(num_classes=CLASSES), (3, 224, 224)),
}
WAYS: dict[str, dict[str, Any]] = {
    "paddle": {"opset_version": 13},
    "paddle-9": {"opset_version": 9},
    "paddle-18": {"opset_version": 18},
}


def randomised(net: nn.Layer, shape: tuple[int, int, int]) -> nn.Layer:
    """Return the net with weights and BatchNorm statistics that keep its signals alive, in eval mode.

    What BatchNorm returns is shifted by its deviation, see `measured` in benchmarks/zoo/torch_ways.py.
    """
    draws = np.random.default_rng(0)
    norms = [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    with paddle.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                offset = 1.0 if float(paddle.abs(parameter).max()) > 0 else 0.0  # a factor; offsets begin as 0
                parameter.set_value(offset + 0.1 * draws.standard_normal(parameter.shape).astype(np.float32))
            else:  # (out, in, height, width) of a convolution, (in, out) of a linear layer
                inputs = math.prod(parameter.shape[1:]) if parameter.ndim > 2 else parameter.shape[0]
                drawn = draws.standard_normal(parameter.shape) * (1.5 / inputs) ** 0.5
                parameter.set_value(drawn.astype(np.float32))
        for norm in norms:
            norm.train()
            norm._momentum = 0.0
            norm.bias.set_value(norm.bias + norm.weight)
        net(paddle.to_tensor(draws.standard_normal((16, *shape)).astype(np.float32)))
    net.eval()
    return net


def answers(net: nn.Layer, family: Family) -> dict[str, np.ndarray]:
    """Return what the net itself says, for every number of images."""
    found = {}
    for count in (2,) if family.shape[-1] >= LARGE else BATCHES:
        draws = np.random.default_rng(count)
        images = paddle.to_tensor(draws.standard_normal((count, *family.shape)).astype(np.float32), stop_gradient=False)
        outputs = net(images)
        weights = draws.standard_normal(outputs.shape).astype(np.float32)
        # Not `paddle.grad`: of the images alone, Paddle 3.3 leaves the weight of a LayerNorm out of its gradient.
        (outputs * paddle.to_tensor(weights)).sum().backward()
        found[f"probabilities{count}" if family.probabilities else f"logits{count}"] = outputs.numpy()
        found |= {f"images{count}": images.numpy(), f"weights{count}": weights, f"gradient{count}": images.grad.numpy()}
    return found


def write(name: str, way: str, path: Path) -> None:
    """Make one export, and what belongs to it."""
    paddle.seed(0)
    family = FAMILIES[name]
    net = randomised(family.build(), family.shape)
    values = answers(net, family)
    spec = [paddle.static.InputSpec([None, *family.shape], "float32", "x")]
    program = path.with_suffix("")
    paddle.jit.save(net, str(program), input_spec=spec)
    try:
        graph, weights = program.with_name(f"{program.name}.json"), program.with_name(f"{program.name}.pdiparams")
        paddle2onnx.export(str(graph), str(weights), str(path), optimize_tool=None, verbose=False, **WAYS[way])
    finally:
        for left in path.parent.glob(f"{program.name}.*"):
            if left != path:
                left.unlink()
    np.savez(shelf.beside(path, ".npz"), **values)


if __name__ == "__main__":
    shelf.serve(__doc__, {name: tuple(WAYS) for name in FAMILIES}, write)
