"""Nets of tokens: ViTs written in several ways, Swin, CCT, MLP-Mixer, ConvNeXt, ConvMixer, PoolFormer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.dfkd_core.zoo.parts import NUM_CLASSES, Plus, head


class Attention(nn.Module):
    """Heads in one matrix, PyTorch's own product."""

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


class EinsumAttention(nn.Module):
    """The same, spelled out with einsum and a softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        shape = (batch, length, self.heads, width // self.heads)
        query, key, value = (part(tokens).view(shape) for part in (self.query, self.key, self.value))
        scores = torch.einsum("bihd,bjhd->bhij", query, key) * (width // self.heads) ** -0.5
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value)
        return self.out(mixed.reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width: int, attention: type[nn.Module] = Attention) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = attention(width, 2)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class ViT(nn.Module):
    def __init__(self, attention: type[nn.Module] = Attention, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 17, width))
        self.blocks, self.norm = nn.Sequential(Block(width, attention), Block(width, attention)), nn.LayerNorm(width)
        self.head = nn.Linear(width, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)  # (N, 16, width)
        tokens = torch.cat([self.token.expand(tokens.shape[0], -1, -1), tokens], 1) + self.positions
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def einsum_vit() -> nn.Module:
    return ViT(EinsumAttention)


class MultiheadViT(nn.Module):
    """The same with torch's own attention module: batch second, a pooled head."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.norm, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 2)
        self.head = nn.Linear(width, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.patches(images).flatten(2).permute(2, 0, 1))  # (16, N, width)
        return self.head((tokens + self.attention(tokens, tokens, tokens)[0]).mean(0))


class CompactTransformer(nn.Module):
    """CCT: a convolutional tokenizer, torch's encoder layers, tokens pooled by a learned weight."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.tokenizer = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(3, 4, 1))
        layer = nn.TransformerEncoderLayer(width, 2, 32, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.positions, self.weigh = nn.Parameter(torch.randn(1, 16, width)), nn.Linear(width, 1)
        self.head = nn.Linear(width, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.encoder(self.tokenizer(images).flatten(2).transpose(1, 2) + self.positions)  # (N, 16, width)
        weights = F.softmax(self.weigh(tokens), dim=1).transpose(-1, -2)
        return self.head((weights @ tokens).squeeze(-2))


class WindowAttention(nn.Module):
    """Swin's: attention inside windows, shifted or not, with a table of relative positions."""

    def __init__(self, width: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift, self.heads = window, shift, 2
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, self.heads))
        places = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None, :]) + window - 1  # (2, W², W²)
        self.register_buffer("index", apart[0] * (2 * window - 1) + apart[1])
        regions = torch.zeros(8, 8)
        if shift:
            for row, rows in enumerate((slice(0, -window), slice(-window, -shift), slice(-shift, None))):
                for column, columns in enumerate((slice(0, -window), slice(-window, -shift), slice(-shift, None))):
                    regions[rows, columns] = 3 * row + column
        cut = regions.view(8 // window, window, 8 // window, window).transpose(1, 2).reshape(-1, window**2)
        self.register_buffer("mask", (cut[:, None] != cut[:, :, None]) * -100.0)  # (windows, W², W²)

    def forward(self, images: Tensor) -> Tensor:
        batch, height, columns, width = images.shape
        size, length = self.window, self.window**2
        if self.shift:
            images = torch.roll(images, (-self.shift, -self.shift), (1, 2))
        tiles = images.view(batch, height // size, size, columns // size, size, width).permute(0, 1, 3, 2, 4, 5)
        qkv = self.qkv(tiles.reshape(-1, length, width)).reshape(-1, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = query * (width // self.heads) ** -0.5 @ key.transpose(-2, -1)
        scores = scores + self.table[self.index.view(-1)].view(length, length, -1).permute(2, 0, 1).unsqueeze(0)
        if self.shift:
            windows = self.mask.shape[0]
            scores = scores.view(-1, windows, self.heads, length, length) + self.mask[:, None].unsqueeze(0)
            scores = scores.view(-1, self.heads, length, length)
        mixed = self.out((scores.softmax(-1) @ value).transpose(1, 2).reshape(-1, length, width))
        tiles = mixed.view(-1, height // size, columns // size, size, size, width).permute(0, 1, 3, 2, 4, 5)
        joined = tiles.reshape(-1, height, columns, width)
        return torch.roll(joined, (self.shift, self.shift), (1, 2)) if self.shift else joined


class PatchMerging(nn.Module):
    """Swin's: four neighbours become one token of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        parts = [images[:, row::2, column::2, :] for column in (0, 1) for row in (0, 1)]
        return self.reduce(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()

        def block(shift: int) -> nn.Module:
            mlp = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            return nn.Sequential(Plus(nn.Sequential(nn.LayerNorm(width), WindowAttention(width, 4, shift))), Plus(mlp))

        self.patches, self.norm = nn.Conv2d(3, width, 2, stride=2), nn.LayerNorm(width)
        self.blocks = nn.Sequential(block(0), block(2), PatchMerging(width), nn.LayerNorm(2 * width))
        self.head = nn.Linear(2 * width, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.patches(images).permute(0, 2, 3, 1))  # (N, 8, 8, width)
        return self.head(self.blocks(tokens).mean((1, 2)))


class Transposed(nn.Module):
    """A module over the tokens in the place of the channels."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, tokens: Tensor) -> Tensor:
        return self.body(tokens.transpose(1, 2)).transpose(1, 2)


class Mixer(nn.Module):
    """MLP-Mixer: products over the tokens, then over the channels."""

    def __init__(self, width: int = 16, length: int = 16) -> None:
        super().__init__()

        def mlp(size: int) -> nn.Module:
            return nn.Sequential(nn.Linear(size, 24), nn.GELU(approximate="tanh"), nn.Linear(24, size))

        self.patches = nn.Conv2d(3, width, 4, stride=4)
        blocks = [
            nn.Sequential(
                Plus(nn.Sequential(nn.LayerNorm(width), Transposed(mlp(length)))),
                Plus(nn.Sequential(nn.LayerNorm(width), mlp(width))),
            )
            for _ in range(2)
        ]
        self.blocks, self.head = nn.Sequential(*blocks, nn.LayerNorm(width)), nn.Linear(width, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


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
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.LayerNorm(16), nn.Linear(16, NUM_CLASSES)]
    return nn.Sequential(*stem, *down, *last)


def convmixer() -> nn.Module:
    """Depthwise with a shortcut, then pointwise; GELU before every BatchNorm."""

    def mixed(width: int) -> list[nn.Module]:
        depthwise = [nn.Conv2d(width, width, 5, groups=width, padding="same"), nn.GELU(), nn.BatchNorm2d(width)]
        return [Plus(nn.Sequential(*depthwise)), nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width)]

    return nn.Sequential(nn.Conv2d(3, 12, 2, 2), nn.GELU(), nn.BatchNorm2d(12), *mixed(12), *mixed(12), *head(12))


class Pooling(nn.Module):
    """PoolFormer's mixer of tokens."""

    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 3, 1, 1, count_include_pad=False) - images


def poolformer() -> nn.Module:
    def block(width: int) -> list[nn.Module]:
        mlp = [nn.GroupNorm(1, width), nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1)]
        return [Plus(nn.Sequential(nn.GroupNorm(1, width), Pooling())), Plus(nn.Sequential(*mlp))]

    return nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), *block(8), nn.Conv2d(8, 16, 3, 2, 1), *block(16), *head(16))
