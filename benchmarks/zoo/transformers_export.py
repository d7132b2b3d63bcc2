"""`python benchmarks/zoo/transformers_export.py FOLDER` exports small image classifiers of `transformers` from configs.

It runs in an environment of its own, and imports nothing of this project:

    python3.11 -m venv zoo && zoo/bin/pip install torch==2.13.0 transformers onnx onnxscript
    zoo/bin/python benchmarks/zoo/transformers_export.py FOLDER [--families vit swin] [--ways dynamo legacy]

Nothing is downloaded: weights are drawn at random, so that every layer matters to the logits. For each family and way
it writes NAME.WAY.onnx and, for the comparison, NAME.WAY.npz: images, logits, the weights of a sum of logits, and the
gradient of that sum at the images. A refusal of the exporter is kept as NAME.WAY.txt. `python -m benchmarks.zoo.reading
FOLDER` reads the folder in the project's environment.
"""

import argparse
import logging
import math
import os
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
import transformers
from torch import Tensor, nn

CLASSES = 10
BATCHES = (1, 2, 5)


@dataclass(frozen=True)
class Way:
    """One way to export."""

    dynamo: bool
    batch: int | None = None  # None: dynamic
    keep: bool = False  # BatchNormalization is kept: the exporter neither folds nor optimises


WAYS = {
    "dynamo": Way(dynamo=True),
    "dynamo-1": Way(dynamo=True, batch=1),
    "dynamo-kept": Way(dynamo=True, keep=True),
    "legacy": Way(dynamo=False),
    "legacy-1": Way(dynamo=False, batch=1),
    "legacy-kept": Way(dynamo=False, keep=True),
}


@dataclass(frozen=True)
class Family:
    """An image classifier of `transformers` and the config that makes it small."""

    name: str  # <name>Config and <name>ForImageClassification are its classes
    size: int  # images are (N, 3, size, size)
    options: dict[str, Any]
    model: str | None = None  # the classifier's class where it has another name
    vision: bool = False  # the options are those of `vision_config`

    def build(self) -> nn.Module:
        """Return the network from images to logits, with random weights, in eval mode."""
        options = {"num_labels": CLASSES} | ({"vision_config": self.options} if self.vision else self.options)
        config = getattr(transformers, f"{self.name}Config")(**options)
        kind = getattr(transformers, self.model or f"{self.name}ForImageClassification")
        return Logits(randomised(kind(config))).eval()


class Logits(nn.Module):
    """The logits alone, of what a classifier of `transformers` returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


def randomised(model: nn.Module) -> nn.Module:
    """Return the model with weights that keep its signals alive; fresh ones differ by family, down to 1e-6."""
    generator = torch.Generator().manual_seed(0)

    def normal(tensor: Tensor, mean: float, deviation: float) -> None:
        tensor.copy_(mean + deviation * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or tensor.dim() == 0:
                continue
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif isinstance(tensor, nn.Parameter) and tensor.dim() > 1:
                normal(tensor, 0.0, 1 / math.sqrt(tensor[0].numel()))
            elif isinstance(tensor, nn.Parameter) or name.endswith("running_mean"):
                normal(tensor, 0.0 if name.endswith(("bias", "running_mean")) else 1.0, 0.1)
    return model


PATCHES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VIT = PATCHES | {"image_size": 32, "patch_size": 8}
FOUR = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}

WINDOWS = {"patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
EAGER = {"attn_implementation": "eager"}  # attention as single steps, where PyTorch's own product cannot be exported

FAMILIES: dict[str, Family] = {
    "vit-eager": Family("ViT", 32, VIT | EAGER),
    "vit": Family("ViT", 32, VIT),
    "deit": Family("DeiT", 32, VIT),
    "deit-distilled": Family("DeiT", 32, VIT, model="DeiTForImageClassificationWithTeacher"),
    "vit-msn": Family("ViTMSN", 32, VIT),
    "dinov2": Family("Dinov2", 56, PATCHES | {"image_size": 56, "patch_size": 14, "mlp_ratio": 2}),
    "dinov2-registers": Family("Dinov2WithRegisters", 56, PATCHES | {"image_size": 56, "patch_size": 14}),
    "ijepa": Family("IJepa", 32, VIT),
    "clip": Family("CLIP", 32, VIT, vision=True),
    "siglip": Family("Siglip", 32, VIT, vision=True),
    "beit": Family("Beit", 32, VIT | {"use_relative_position_bias": True, "use_mask_token": False}),
    "beit-absolute": Family("Beit", 32, VIT | {"use_absolute_position_embeddings": True}),
    "data2vec": Family("Data2VecVision", 32, VIT | {"use_shared_relative_position_bias": True}),
    "beit-eager": Family("Beit", 32, VIT | EAGER | {"use_relative_position_bias": True}),
    "data2vec-eager": Family("Data2VecVision", 32, VIT | EAGER | {"use_shared_relative_position_bias": True}),
    "bit": Family(
        "Bit", 32, {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1] * 4, "num_groups": 4}
    ),
    "bit-same": Family(
        "Bit",
        32,
        {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 2], "num_groups": 4}
        | {"layer_type": "bottleneck", "global_padding": "SAME"},
    ),
    "resnet": Family("ResNet", 32, FOUR | {"embedding_size": 8, "layer_type": "basic"}),
    "resnet-bottleneck": Family("ResNet", 32, FOUR | {"embedding_size": 8}),
    "regnet": Family("RegNet", 32, FOUR | {"embedding_size": 8, "groups_width": 8}),
    "regnet-x": Family("RegNet", 32, FOUR | {"embedding_size": 8, "groups_width": 8, "layer_type": "x"}),
    "convnext": Family("ConvNext", 32, FOUR | {"patch_size": 2}),
    "convnext-v2": Family("ConvNextV2", 32, FOUR | {"patch_size": 2}),
    "mobilenet-v1": Family("MobileNetV1", 32, {"depth_multiplier": 0.25, "image_size": 32}),
    "mobilenet-v2": Family("MobileNetV2", 32, {"depth_multiplier": 0.35, "image_size": 32}),
    "efficientnet": Family(
        "EfficientNet", 64, {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320}
    ),
    "swin": Family("Swin", 32, WINDOWS | {"image_size": 32}),
    "swin-eager": Family("Swin", 32, WINDOWS | EAGER | {"image_size": 32}),
    "swin-padded": Family("Swin", 36, WINDOWS | EAGER | {"image_size": 36}),
    "swin-v2": Family("Swinv2", 32, WINDOWS | {"image_size": 32}),
    "focalnet": Family(
        "FocalNet",
        32,
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}
        | {"focal_levels": [2, 2], "focal_windows": [3, 3]},
    ),
    "levit": Family(
        "Levit",
        64,
        {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1]}
        | {"key_dim": [8, 8, 8]},
    ),
    "levit-distilled": Family(
        "Levit",
        64,
        {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1]}
        | {"key_dim": [8, 8, 8]},
        model="LevitForImageClassificationWithTeacher",
    ),
    "poolformer": Family("PoolFormer", 64, FOUR),
    "cvt": Family("Cvt", 32, {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]}),
    "segformer": Family("Segformer", 64, FOUR | {"num_attention_heads": [1, 2, 3, 4]}),
    "pvt": Family("Pvt", 64, FOUR | {"image_size": 64, "num_attention_heads": [1, 2, 3, 4]}),
    "pvt-v2": Family("PvtV2", 64, FOUR | {"image_size": 64, "num_attention_heads": [1, 2, 3, 4]}),
    "pvt-v2-linear": Family(
        "PvtV2", 64, FOUR | {"image_size": 64, "num_attention_heads": [1, 2, 3, 4], "linear_attention": True}
    ),
    "hiera": Family(
        "Hiera",
        64,
        {
            "image_size": [64, 64],
            "embed_dim": 16,
            "num_heads": [1, 2],
            "depths": [1, 2],
            "masked_unit_size": [4, 4],
            "query_stride": [2, 2],
            "num_query_pool": 1,
            "masked_unit_attention": [True, False],
        },
    ),
    "mobilevit": Family(
        "MobileViT",
        64,
        {"image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 8, 16, 24, 32, 40, 64]},
    ),
    "mobilevit-v2": Family("MobileViTV2", 64, {"image_size": 64, "width_multiplier": 0.25}),
    "swiftformer": Family("SwiftFormer", 64, {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [8, 16, 24, 32]}),
    "hgnet-v2": Family("HGNetV2", 64, {}),
    "textnet": Family("TextNet", 64, {}),
}


def export(net: nn.Module, images: Tensor, path: Path, way: Way) -> None:
    """Write the network; a dynamic batch is called `batch`."""
    if way.dynamo:
        torch.onnx.export(
            net,
            (images,),
            path,
            dynamo=True,
            optimize=not way.keep,
            external_data=False,
            verbose=False,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_shapes=None if way.batch else ({0: torch.export.Dim("batch")},),
        )
    else:
        torch.onnx.export(
            net,
            (images,),
            path,
            dynamo=False,
            do_constant_folding=not way.keep,
            training=torch.onnx.TrainingMode.PRESERVE if way.keep else torch.onnx.TrainingMode.EVAL,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_axes=None if way.batch else {"pixel_values": {0: "batch"}, "logits": {0: "batch"}},
        )


def answers(net: nn.Module, size: int) -> dict[str, np.ndarray]:
    """Logits and gradients of the network itself, for every batch size: what a reading is compared with."""
    found = {}
    for count in BATCHES:
        generator = torch.Generator().manual_seed(count)
        images = torch.randn(count, 3, size, size, generator=generator, requires_grad=True)
        logits = net(images)
        weights = torch.randn(logits.shape, generator=generator)
        # Twice each image: of a single one PyTorch 2.13 computes a wrong gradient in LeViT, off its finite difference.
        twice = net(torch.cat([images, images]))[:count]
        (gradient,) = torch.autograd.grad((twice * weights).sum(), images)
        arrays = {"images": images, "logits": logits, "weights": weights, "gradient": gradient}
        found |= {f"{name}{count}": tensor.detach().numpy() for name, tensor in arrays.items()}
    return found


def write(name: str, way: str, folder: Path, families: dict[str, Family]) -> str:
    """Export one family in one way; a word on how it went."""
    stem = folder / f"{name}.{way}"
    family = families[name]
    try:
        net = family.build()
        images = torch.randn(WAYS[way].batch or 2, 3, family.size, family.size)
        export(net, images, stem.with_name(f"{stem.name}.onnx"), WAYS[way])
        np.savez(stem.with_name(f"{stem.name}.npz"), **answers(net, family.size))
    except Exception as error:  # whatever a model or an exporter raises: their errors have no class in common
        stem.with_name(f"{stem.name}.txt").write_text(traceback.format_exc())
        stem.with_name(f"{stem.name}.onnx").unlink(missing_ok=True)
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120] if str(error).strip() else ''}"
    return "written"


def _terminal() -> TextIO:
    """Return standard output for our own lines alone: what the exporters print, in C++ too, goes nowhere."""
    terminal = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return terminal


def main(families: dict[str, Family] = FAMILIES) -> None:
    """Export what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--families", nargs="*", default=list(families))
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    terminal = _terminal()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name in options.families:
        for way in options.ways:
            print(f"{name:<20} {way:<12} {write(name, way, options.folder, families)}", file=terminal)


if __name__ == "__main__":
    main()
