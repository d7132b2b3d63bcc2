"""Small own versions of the architectures that people export: 16 x 16 images, 10 classes, random statistics."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (3, 16, 16)
NUM_CLASSES = 10


def conv_bn(inputs: int, outputs: int, act: type[nn.Module] | None = nn.ReLU, **options: int) -> nn.Sequential:
    """Convolution, BatchNorm and, if any, an activation."""
    size = options.pop("kernel", 3)
    layers = [nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([act()] if act else []))


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 8, 3)
        self.fc1, self.fc2 = nn.Linear(32, 16), nn.Linear(16, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.max_pool2d(F.relu(self.conv1(images)), 2)  # (N, 6, 6, 6)
        hidden = F.max_pool2d(F.relu(self.conv2(hidden)), 2)  # (N, 8, 2, 2)
        hidden = hidden.view(hidden.size(0), -1)
        return self.fc2(F.relu(self.fc1(hidden)))


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn(inputs, outputs, stride=stride), *conv_bn(outputs, outputs, act=None))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, act=None, kernel=1, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.body(images) + self.shortcut(images))


def resnet8() -> nn.Module:
    blocks = [Residual(8, 8, 1), Residual(8, 16, 2), Residual(16, 32, 2)]
    return nn.Sequential(*conv_bn(3, 8), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, NUM_CLASSES))


def vgg() -> nn.Module:
    features = [conv_bn(3, 8), nn.MaxPool2d(2), conv_bn(8, 16), nn.MaxPool2d(2, ceil_mode=True), conv_bn(16, 16)]
    pooled = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 24), nn.ReLU(inplace=True)]
    return nn.Sequential(*features, *pooled, nn.Dropout(0.3), nn.Linear(24, NUM_CLASSES))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, gate: Callable[[Tensor], Tensor], act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        self.gate, self.act = gate, act

    def forward(self, images: Tensor) -> Tensor:
        pooled = images.mean((2, 3), keepdim=True)
        return images * self.gate(self.expand(self.act(self.reduce(pooled))))


class Inverted(nn.Module):
    """The inverted residual of MobileNetV2/V3 and EfficientNet."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: type[nn.Module], excite: nn.Module | None) -> None:
        super().__init__()
        hidden = inputs * 3
        layers = [conv_bn(inputs, hidden, act, kernel=1), conv_bn(hidden, hidden, act, stride=stride, groups=hidden)]
        self.body = nn.Sequential(*layers, excite or nn.Identity(), conv_bn(hidden, outputs, None, kernel=1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        return images + self.body(images) if self.residual else self.body(images)


def mobilenet_v2() -> nn.Module:
    blocks = [Inverted(8, 8, 1, nn.ReLU6, None), Inverted(8, 12, 2, nn.ReLU6, None)]
    head = [conv_bn(12, 32, nn.ReLU6, kernel=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)]
    return nn.Sequential(conv_bn(3, 8, nn.ReLU6, stride=2), *blocks, *head, nn.Linear(32, NUM_CLASSES))


def mobilenet_v3() -> nn.Module:
    def squeeze() -> nn.Module:
        return SqueezeExcite(24, F.hardsigmoid, F.relu)

    blocks = [Inverted(8, 8, 1, nn.ReLU, squeeze()), Inverted(8, 12, 2, nn.Hardswish, squeeze())]
    head = [conv_bn(12, 32, nn.Hardswish, kernel=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)]
    classifier = [nn.Linear(32, 24), nn.Hardswish(), nn.Linear(24, NUM_CLASSES)]
    return nn.Sequential(conv_bn(3, 8, nn.Hardswish, stride=2), *blocks, *head, *classifier)


def efficientnet() -> nn.Module:
    blocks = [Inverted(8, 8, 1, nn.SiLU, SqueezeExcite(24, torch.sigmoid, F.silu)), Inverted(8, 12, 2, nn.SiLU, None)]
    head = [conv_bn(12, 32, nn.SiLU, kernel=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)]
    return nn.Sequential(conv_bn(3, 8, nn.SiLU, stride=2), *blocks, *head, nn.Linear(32, NUM_CLASSES))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images, self.conv(F.relu(self.norm(images)))], 1)


def densenet() -> nn.Module:
    dense = [DenseLayer(8, 4), DenseLayer(12, 4)]
    transition = [nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2)]
    head = [nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(1), nn.Linear(12, NUM_CLASSES)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), *dense, *transition, DenseLayer(8, 4), *head)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # each (N, heads, L, D)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 2)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class ViT(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 17, width))
        self.blocks, self.norm = nn.Sequential(Block(width), Block(width)), nn.LayerNorm(width)
        self.head = nn.Linear(width, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)  # (N, 16, width)
        tokens = torch.cat([self.token.expand(tokens.shape[0], -1, -1), tokens], 1) + self.positions
        return self.head(self.norm(self.blocks(tokens))[:, 0])


class MultiheadViT(nn.Module):
    """The same with torch's own encoder layers: batch second inside the attention, a pooled head."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.norm, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 2)
        self.head = nn.Linear(width, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.patches(images).flatten(2).permute(2, 0, 1))  # (16, N, width)
        return self.head((tokens + self.attention(tokens, tokens, tokens)[0]).mean(0))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width, eps=1e-6)
        self.expand, self.reduce = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.randn(width))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(self.depthwise(images).permute(0, 2, 3, 1))  # (N, H, W, C)
        hidden = self.scale * self.reduce(F.gelu(self.expand(hidden)))
        return images + hidden.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    stem = [nn.Conv2d(3, 8, 2, stride=2), ChannelNorm(8), ConvNeXtBlock(8)]
    down = [ChannelNorm(8), nn.Conv2d(8, 16, 2, stride=2), ConvNeXtBlock(16)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.LayerNorm(16), nn.Linear(16, NUM_CLASSES)]
    return nn.Sequential(*stem, *down, *head)


def groupnorm() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.MaxPool2d(2)]
    more = [nn.Conv2d(8, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, *more, nn.Flatten(), nn.Linear(16, NUM_CLASSES))


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: split, transform one half, join, shuffle the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            conv_bn(half, half, kernel=1), conv_bn(half, half, None, groups=half), conv_bn(half, half, kernel=1)
        )

    def forward(self, images: Tensor) -> Tensor:
        kept, changed = images.chunk(2, dim=1)
        joined = torch.cat([kept, self.body(changed)], 1)
        batch, channels, height, width = joined.shape
        grouped = joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return grouped.view(batch, channels, height, width)


def shufflenet() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8),
        nn.MaxPool2d(3, 2, 1),
        Shuffle(8),
        Shuffle(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


ZOO: dict[str, Callable[[], nn.Module]] = {
    "lenet": LeNet,
    "resnet8": resnet8,
    "vgg": vgg,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet": efficientnet,
    "densenet": densenet,
    "vit": ViT,
    "multihead_vit": MultiheadViT,
    "convnext": convnext,
    "groupnorm": groupnorm,
    "shufflenet": shufflenet,
}


def build(name: str) -> nn.Module:
    """The named net in eval mode; the same weights and non-trivial BatchNorm statistics at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(sorted(ZOO).index(name))
        net = ZOO[name]()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(module.weight, 0.7, 1.3)
                nn.init.normal_(module.bias, 0, 0.2)
    return net.eval()
