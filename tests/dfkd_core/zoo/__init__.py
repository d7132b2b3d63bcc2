"""Small own versions of the architectures that people export: 16 x 16 images, 10 classes, random statistics."""

import zlib
from collections.abc import Callable

import torch
from torch import nn

from tests.dfkd_core.zoo import attention, mobile, plain, residual, unusual
from tests.dfkd_core.zoo.parts import NUM_CLASSES, SHAPE

__all__ = ["NUM_CLASSES", "SHAPE", "ZOO", "build"]

ZOO: dict[str, Callable[[], nn.Module]] = {
    "lenet": plain.LeNet,
    "tanh_lenet": plain.tanh_lenet,
    "alexnet": plain.alexnet,
    "vgg": plain.vgg,
    "all_cnn": plain.all_cnn,
    "nin": plain.nin,
    "squeezenet": plain.squeezenet,
    "inception": plain.inception,
    "resnet8": residual.resnet8,
    "resnet_bottleneck": residual.resnet_bottleneck,
    "preact_resnet": residual.preact_resnet,
    "wrn": residual.WideResNet,
    "resnext": residual.resnext,
    "se_resnet": residual.se_resnet,
    "densenet": residual.densenet,
    "repvgg": residual.repvgg,
    "mobilenet_v1": mobile.mobilenet_v1,
    "mobilenet_v2": mobile.mobilenet_v2,
    "mobilenet_v3": mobile.mobilenet_v3,
    "efficientnet": mobile.efficientnet,
    "same_padding": mobile.same_padding,
    "shufflenet": mobile.shufflenet,
    "shufflenet_v1": mobile.shufflenet_v1,
    "ghostnet": mobile.ghostnet,
    "vit": attention.ViT,
    "multihead_vit": attention.MultiheadViT,
    "einsum_vit": attention.einsum_vit,
    "cct": attention.CompactTransformer,
    "swin": attention.Swin,
    "mixer": attention.Mixer,
    "convnext": attention.convnext,
    "convmixer": attention.convmixer,
    "poolformer": attention.poolformer,
    "groupnorm": unusual.groupnorm,
    "instancenorm": unusual.instancenorm,
    "rmsnorm": unusual.RMSNormNet,
    "activations": unusual.activations,
    "pools": unusual.pools,
    "adaptive_pool": unusual.adaptive,
    "dilated": unusual.dilated,
    "hourglass": unusual.Hourglass,
    "bicubic": unusual.bicubic,
    "reparametrized": unusual.reparametrized,
    "standardized": unusual.standardized,
    "spatial_transformer": unusual.SpatialTransformer,
    "cosine_head": unusual.CosineHead,
    "preprocessed": unusual.Preprocessed,
    "probabilities": unusual.Probabilities,
    "top_class": unusual.TopClass,
    "recurrent": unusual.Recurrent,
}


def build(name: str) -> nn.Module:
    """The named net in eval mode; the same weights and non-trivial BatchNorm statistics at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(name.encode()))
        net = ZOO[name]()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(module.weight, 0.7, 1.3)
                nn.init.normal_(module.bias, 0, 0.2)
    return net.eval()
