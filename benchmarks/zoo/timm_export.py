"""Exports image classifiers of `timm`, made small where their options allow it, and some of real size; no downloads.

`ENVIRONMENT/bin/python -m benchmarks.zoo.timm_export FOLDER`, see benchmarks/zoo/shelf.py. Weights are drawn at random,
so that every layer matters to the logits, and the statistics of BatchNorm are those of some images.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from benchmarks.zoo import torch_ways

import timm  # isort: skip  # it imports torchvision, whose operators torch_ways declares


@dataclass(frozen=True)
class Family:
    """A net of `timm` and the options that make it small."""

    name: str  # of the model, or of the class where the model's own sizes are fixed
    size: int = 64  # images are (N, 3, size, size)
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Return the network from images to logits, in eval mode."""
        named = timm.is_model(self.name)
        make = partial(timm.create_model, self.name) if named else getattr(timm.models, self.name)
        net = make(num_classes=torch_ways.CLASSES, **self.options)
        return torch_ways.measured(torch_ways.randomised(net).eval(), (3, self.size, self.size))


def _sized(size: int = 64, **options: Any) -> dict[str, Any]:
    """Return the options of a net that must know the size of its images."""
    return {"img_size": size} | options


FAMILIES: dict[str, Family] = {
    "resnet": Family("test_resnet"),
    "resnet-d": Family("resnet10t"),
    "resnet-se": Family("seresnet18", options={"layers": (1, 1, 1, 1)}),
    "resnet-eca": Family("ecaresnet26t", options={"layers": (1, 1, 1, 1)}),
    "resnet-blur": Family("resnetblur18", options={"layers": (1, 1, 1, 1)}),
    "resnetv2": Family("resnetv2_18", options={"layers": (1, 1, 1, 1)}),
    "bit": Family("resnetv2_50x1_bit"),
    "nfnet": Family("test_nfnet"),
    "byobnet": Family("test_byobnet"),
    "resnest": Family("resnest14d"),
    "sknet": Family("skresnet18", options={"layers": (1, 1, 1, 1)}),
    "res2net": Family("res2net50_26w_4s", options={"layers": (1, 1, 1, 1)}),
    "regnet-x": Family("regnetx_002"),
    "regnet-y": Family("regnety_002"),
    "densenet": Family("densenet121", options={"block_config": (2, 2, 2, 2)}),
    "dla": Family("dla46_c"),
    "vovnet": Family("ese_vovnet19b_slim_dw"),
    "rexnet": Family("rexnet_100"),
    "hgnet-v2": Family("hgnetv2_b0"),
    "mobilenet-v2": Family("mobilenetv2_050"),
    "mobilenet-v3": Family("mobilenetv3_small_050"),
    "mobilenet-v4": Family("mobilenetv4_conv_small_050"),
    "mobilenet-v4-hybrid": Family("mobilenetv4_hybrid_medium"),
    "mobileone": Family("mobileone_s0"),
    "mnasnet": Family("mnasnet_050"),
    "lcnet": Family("lcnet_050"),
    "tinynet": Family("tinynet_e"),
    "ghostnet": Family("ghostnet_050"),
    "ghostnet-v2": Family("ghostnetv2_100"),
    "repghostnet": Family("repghostnet_050"),
    "repvgg": Family("repvgg_a0"),
    "repvit": Family("repvit_m0_9"),
    "efficientnet": Family("test_efficientnet"),
    "efficientnet-b0": Family("efficientnet_b0"),
    "efficientnet-lite": Family("efficientnet_lite0"),
    "efficientnet-same": Family("tf_efficientnet_b0"),
    "efficientnet-groupnorm": Family("test_efficientnet_gn"),
    "efficientnet-layernorm": Family("test_efficientnet_ln"),
    "efficientnet-evonorm": Family("test_efficientnet_evos"),
    "convnext": Family("test_convnext"),
    "convnext-v2": Family("test_convnext3"),
    "convmixer": Family("ConvMixer", options={"dim": 64, "depth": 2, "patch_size": 8}),
    "fasternet": Family("fasternet_t0"),
    "fastvit": Family("fastvit_t8"),
    "starnet": Family("starnet_s050"),
    "shvit": Family("shvit_s1"),
    "edgenext": Family("edgenext_xx_small"),
    "inception-next": Family("inception_next_atto"),
    "mambaout": Family("test_mambaout"),
    "mobilevit": Family("mobilevit_xxs"),
    "mobilevit-v2": Family("mobilevitv2_050"),
    "levit": Family("levit_128s", 224),
    "efficientformer-v2": Family("efficientformerv2_s0", 224),
    "efficientvit-mit": Family("efficientvit_b0"),
    "efficientvit-msra": Family("efficientvit_m0", 224),
    "swiftformer": Family("swiftformer_xs"),
    "poolformer": Family("poolformer_s12"),
    "caformer": Family("caformer_s18"),
    "halonet": Family("halonet26t", 256),
    "lambda-resnet": Family("lambda_resnet26t", 128),
    "coatnet": Family("test_coatnet", options=_sized()),
    "maxvit": Family("test_maxvit", options=_sized()),
    "vit": Family("test_vit", options=_sized()),
    "vit-registers": Family("test_vit2", options=_sized()),
    "vit-relpos": Family("test_vit_relpos", options=_sized()),
    "vit-rope": Family("eva02_tiny_patch14_224", 56, _sized(56, depth=2)),
    "deit-distilled": Family("deit_tiny_distilled_patch16_224", options=_sized(depth=2)),
    "cait": Family("cait_xxs24_224", options=_sized(depth=2)),
    "xcit": Family("xcit_nano_12_p16_224", options=_sized(depth=2)),
    "convit": Family("convit_tiny", options=_sized(depth=4)),
    "beit": Family("beit_base_patch16_224", options=_sized(depth=2, embed_dim=48, num_heads=4)),
    "mixer": Family("mixer_s32_224", options=_sized()),
    "gmlp": Family("gmlp_ti16_224", options=_sized()),
    "resmlp": Family("resmlp_12_224", options=_sized()),
    "swin": Family("swin_tiny_patch4_window7_224", options=_sized(embed_dim=24, depths=(2, 2), num_heads=(2, 4))),
    "swin-v2": Family("swinv2_tiny_window8_256", options=_sized(embed_dim=24, depths=(2, 2), num_heads=(2, 4))),
    "pvt-v2": Family("pvt_v2_b0"),
    "davit": Family("davit_tiny", options={"depths": (1, 1), "embed_dims": (24, 48), "num_heads": (2, 4)}),
    "focalnet": Family("FocalNet", options={"embed_dim": 24, "depths": (1, 1, 1, 1)}),
    "gcvit": Family("gcvit_xxtiny", 224),
    "hiera": Family("hiera_tiny_224", 224),
    "tiny-vit": Family("tiny_vit_5m_224", 224),
    "visformer": Family("visformer_tiny", 224),
    "sequencer": Family("sequencer2d_s", options=_sized(layers=(1, 1, 1, 1))),
}
REAL: dict[str, Family] = {
    "resnet18-224": Family("resnet18", 224),
    "mobilenet-v3-224": Family("mobilenetv3_large_100", 224),
    "efficientnet-b0-224": Family("efficientnet_b0", 224),
    "convnext-224": Family("convnext_atto", 224),
    "vit-224": Family("vit_tiny_patch16_224", 224),
    "maxvit-224": Family("maxvit_nano_rw_256", 256),
}

if __name__ == "__main__":
    torch_ways.serve(__doc__, FAMILIES, REAL)
