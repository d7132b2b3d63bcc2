"""Exports image classifiers of `transformers` from configs, small ones and some of real size; nothing is downloaded.

`ENVIRONMENT/bin/python -m benchmarks.zoo.transformers_export FOLDER`, see benchmarks/zoo/shelf.py. Weights are drawn at
random, so that every layer matters to the logits.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from benchmarks.zoo import torch_ways

import transformers  # isort: skip  # it imports torchvision, whose operators torch_ways declares


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
        options = {"num_labels": torch_ways.CLASSES} | (
            {"vision_config": self.options} if self.vision else self.options
        )
        config = getattr(transformers, f"{self.name}Config")(**options)
        kind = getattr(transformers, self.model or f"{self.name}ForImageClassification")
        net = torch_ways.Logits(torch_ways.randomised(kind(config)), lambda output: output.logits)
        return torch_ways.measured(net.eval(), (3, self.size, self.size))


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

REAL: dict[str, Family] = {
    "resnet-224": Family(
        "ResNet", 224, {"hidden_sizes": [64, 128, 256, 512], "depths": [2] * 4, "layer_type": "basic"}
    ),
    "vit-224": Family("ViT", 224, {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}),
    "mobilenet-v2-224": Family("MobileNetV2", 224, {}),
    "levit-224": Family("Levit", 224, {}),
    "mobilevit-256": Family("MobileViT", 256, {}),
    "segformer-224": Family("Segformer", 224, {}),
}

if __name__ == "__main__":
    torch_ways.serve(__doc__, FAMILIES, REAL)
