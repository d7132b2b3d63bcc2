"""Nets with what is seldom seen: other normalisations and activations, odd pools, upsampling, reparametrisations."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.dfkd_core.zoo.parts import NUM_CLASSES, Parallel, conv_bn, head


def groupnorm() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.MaxPool2d(2)]
    more = [nn.Conv2d(8, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, *more, nn.Flatten(), nn.Linear(16, NUM_CLASSES))


def instancenorm() -> nn.Module:
    """With and without weights, and with running statistics, which eval mode uses as BatchNorm does."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.MaxPool2d(2)]
    more = [nn.Conv2d(8, 12, 3, padding=1), nn.InstanceNorm2d(12), nn.ReLU()]
    return nn.Sequential(*layers, *more, nn.Conv2d(12, 12, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(108, NUM_CLASSES))


class RMSNormNet(nn.Module):
    """Root mean square normalisation over channels-last features, gated units."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 12, 4, 4), nn.RMSNorm(12, eps=1e-6)
        self.gate, self.up, self.down = nn.Linear(12, 24), nn.Linear(12, 24), nn.Linear(24, 12)
        self.last, self.head = nn.RMSNorm(12), nn.Linear(12, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        hidden = self.norm(tokens)
        tokens = tokens + self.down(F.silu(self.gate(hidden)) * self.up(hidden))
        return self.head(self.last(tokens).mean(1))


def activations() -> nn.Module:
    """One of each, side by side."""
    smooth = [nn.ELU(), nn.SELU(), nn.CELU(0.7), nn.Softplus(), nn.Mish(), nn.Softsign(), nn.Tanhshrink(), nn.GELU()]
    smooth += [nn.LogSigmoid(), nn.SiLU(), nn.GLU(1), nn.Softmax2d(), nn.GELU(approximate="tanh")]
    bent = [nn.PReLU(8), nn.PReLU(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(-0.7, 0.9), nn.ReLU6()]
    bent += [nn.Softshrink(0.1), nn.Hardshrink(0.05), nn.LeakyReLU(0.2)]
    joined = 8 * (len(smooth) + len(bent)) - 4
    return nn.Sequential(conv_bn(3, 8, None), Parallel(*smooth, *bent), nn.Conv2d(joined, 8, 1), *head(8))


def pools() -> nn.Module:
    """Windows that overhang, that leave their border out of the mean, and powers of two."""
    side = [
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 2, ceil_mode=True), nn.ConstantPad2d((0, 0, 0, 0), 0.0)
        ),
    ]
    merged = [
        Parallel(*side[:3]),
        nn.Conv2d(24, 12, 3, stride=2),
        nn.ReLU(),
        nn.LPPool2d(2, 2),
        nn.AdaptiveMaxPool2d(1),
    ]
    return nn.Sequential(conv_bn(3, 8), *merged, nn.Flatten(), nn.Linear(12, NUM_CLASSES))


def adaptive() -> nn.Module:
    """An adaptive pool whose windows differ in size."""
    return nn.Sequential(
        conv_bn(3, 8), nn.AdaptiveAvgPool2d(5), conv_bn(8, 8), nn.Flatten(), nn.Linear(200, NUM_CLASSES)
    )


def dilated() -> nn.Module:
    """Atrous convolutions in parallel (ASPP), reflected and replicated borders, a 1-D head."""
    rates = [
        conv_bn(8, 4, kernel=1),
        nn.Conv2d(8, 4, 3, padding=2, dilation=2),
        nn.Conv2d(8, 4, 3, padding=4, dilation=4),
    ]
    borders = [
        nn.ReflectionPad2d(1),
        nn.Conv2d(12, 8, 3),
        nn.ReLU(),
        nn.ReplicationPad2d((1, 0, 2, 1)),
        nn.MaxPool2d(2),
    ]
    line = [nn.Flatten(2), nn.Conv1d(8, 8, 5, stride=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)]
    last = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, NUM_CLASSES)]
    return nn.Sequential(conv_bn(3, 8), Parallel(*rates), nn.ReLU(), *borders, *line, *last)


class Hourglass(nn.Module):
    """Down, and up again by a transposed convolution, by interpolation and by pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = conv_bn(3, 8, stride=2), conv_bn(8, 8, stride=2)
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1)
        self.wide = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1, groups=2, bias=False)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(14, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.stem(images)  # (N, 8, 8, 8)
        coarse = self.down(fine)  # (N, 8, 4, 4)
        smooth = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        blocky = F.interpolate(coarse, size=(8, 8), mode="nearest")
        added = F.relu(self.norm(self.up(coarse) + fine + smooth)) + blocky
        shuffled = F.pixel_shuffle(added, 2)  # (N, 2, 16, 16)
        joined = torch.cat([self.wide(coarse), added, F.avg_pool2d(shuffled, 2)], 1)  # (N, 14, 8, 8)
        return self.head(joined.flatten(2).mean(-1))


def bicubic() -> nn.Module:
    """A net that enlarges its images first, as pipelines for small images do."""
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bicubic"), conv_bn(3, 8, stride=2), *head(8))


def reparametrized() -> nn.Module:
    """Weight norm and spectral norm: weights that are computed from others at every call."""
    normed = parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
    spectral = parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, stride=2))
    return nn.Sequential(normed, nn.ReLU(), spectral, nn.ReLU(), *head(8))


class StandardizedConv(nn.Conv2d):
    """Weight standardisation, as in BiT."""

    def forward(self, images: Tensor) -> Tensor:
        mean, var = self.weight.mean((1, 2, 3), keepdim=True), self.weight.var((1, 2, 3), keepdim=True, unbiased=False)
        return F.conv2d(images, (self.weight - mean) / torch.sqrt(var + 1e-5), self.bias, self.stride, self.padding)


def standardized() -> nn.Module:
    layers = [StandardizedConv(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU(), StandardizedConv(8, 16, 3, 2)]
    return nn.Sequential(*layers, nn.GroupNorm(4, 16), nn.ReLU(), *head(16))


class SpatialTransformer(nn.Module):
    """A net that turns and stretches its images first, by what it sees in them."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh()
        )
        self.body = nn.Sequential(conv_bn(3, 8, stride=2), *head(8))
        self.register_buffer("same", torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))

    def forward(self, images: Tensor) -> Tensor:
        theta = self.same + 0.2 * self.look(images).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return self.body(F.grid_sample(images, grid, align_corners=False))


class CosineHead(nn.Module):
    """Features and class weights of length one; a temperature; no linear module at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(3, 8, stride=2), conv_bn(8, 16, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.weight = nn.Parameter(torch.randn(NUM_CLASSES, 16))

    def forward(self, images: Tensor) -> Tensor:
        return 10.0 * F.normalize(self.body(images), dim=1) @ F.normalize(self.weight, dim=1).t()


class Preprocessed(nn.Module):
    """Mean and deviation of the images inside of the net."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1))
        self.body = nn.Sequential(conv_bn(3, 8, stride=2), conv_bn(8, 16, stride=2), *head(16))

    def forward(self, images: Tensor) -> Tensor:
        return self.body((images - self.mean) / self.std)


class Probabilities(nn.Module):
    """Logits behind a softmax, as a server would have them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(3, 8, stride=2), *head(8))

    def forward(self, images: Tensor) -> Tensor:
        return F.softmax(self.body(images), dim=1)


class TopClass(nn.Module):
    """Only the best class: nothing to differentiate."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(3, 8, stride=2), *head(8))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images).argmax(1, keepdim=True)


class Recurrent(nn.Module):
    """Rows read one after another by an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.LSTM(48, 16, batch_first=True), nn.Linear(16, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden, _ = self.rows(images.permute(0, 2, 1, 3).flatten(2))
        return self.head(hidden[:, -1])
