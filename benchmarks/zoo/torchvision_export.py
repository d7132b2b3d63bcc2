"""Exports the image classifiers of `torchvision`, at small and at real size, with random weights; no downloads.

`ENVIRONMENT/bin/python -m benchmarks.zoo.torchvision_export FOLDER`, see benchmarks/zoo/shelf.py. The statistics of
BatchNorm are those of some images.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from benchmarks.zoo import torch_ways

from torchvision import models  # isort: skip  # its operators are declared by torch_ways


@dataclass(frozen=True)
class Family:
    """A net of `torchvision`; images are (N, 3, size, size)."""

    name: str  # of the model, or of the class where the model's own sizes are fixed
    size: int = 64
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Return the network from images to logits, in eval mode."""
        named = self.name in models.list_models(models)
        make = partial(models.get_model, self.name, weights=None) if named else getattr(models, self.name)
        net = make(num_classes=torch_ways.CLASSES, **self.options)
        return torch_ways.measured(torch_ways.randomised(net).eval(), (3, self.size, self.size))


FAMILIES: dict[str, Family] = {
    "alexnet": Family("alexnet"),
    "resnet": Family("resnet18"),
    "resnet-bottleneck": Family("resnet50"),
    "resnext": Family("resnext50_32x4d"),
    "densenet": Family("densenet121"),
    "googlenet": Family("googlenet", options={"init_weights": False}),
    "inception-v3": Family("inception_v3", 96, {"init_weights": False}),
    "squeezenet": Family("squeezenet1_1"),
    "shufflenet-v2": Family("shufflenet_v2_x0_5"),
    "mobilenet-v2": Family("mobilenet_v2"),
    "mobilenet-v3": Family("mobilenet_v3_small"),
    "mnasnet": Family("mnasnet0_5"),
    "regnet-x": Family("regnet_x_400mf"),
    "regnet-y": Family("regnet_y_400mf"),
    "efficientnet": Family("efficientnet_b0"),
    "efficientnet-v2": Family("efficientnet_v2_s"),
    "convnext": Family("convnext_tiny"),
    "vit": Family(
        "VisionTransformer",
        options={"image_size": 64, "patch_size": 16, "num_layers": 2, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 64},
    ),
    "swin": Family(
        "SwinTransformer",
        options={"patch_size": [4, 4], "window_size": [7, 7], "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]},
    ),
    "swin-v2": Family("swin_v2_t"),
    "maxvit": Family("maxvit_t", 224),
}
REAL: dict[str, Family] = {
    "resnet18-224": Family("resnet18", 224),
    "resnet50-224": Family("resnet50", 224),
    "mobilenet-v2-224": Family("mobilenet_v2", 224),
    "mobilenet-v3-224": Family("mobilenet_v3_large", 224),
    "efficientnet-b0-224": Family("efficientnet_b0", 224),
    "shufflenet-v2-224": Family("shufflenet_v2_x1_0", 224),
    "swin-224": Family("swin_t", 224),
}

if __name__ == "__main__":
    torch_ways.serve(__doc__, FAMILIES, REAL)
