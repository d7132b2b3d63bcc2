"""Conversion between the loop's tensors, images (N, C, H, W) and logits, and what a teacher's file takes and returns.

`ServedNetwork` puts both conversions around a network, so that it takes and returns what the teacher's file does.
"""

import math

import torch
from torch import Tensor, nn

from dfkd_core.interface import TeacherInterface
from dfkd_core.networks.teacher import InputSpace

LARGEST_PIXEL = 255
SMALLEST = 1e-30  # probabilities below it count as this, so that their logarithm is finite
SMALLEST_REST = 1e-7  # the same for 1 - p of a single probability p, which float32 resolves no finer
DTYPES = {"float32": torch.float32, "float16": torch.float16, "float64": torch.float64, "uint8": torch.uint8}


def to_input(images: Tensor, interface: TeacherInterface, space: InputSpace) -> Tensor:
    """Return what the file takes for images (N, C, H, W) of the input space; pixels of whole numbers are rounded."""
    values = space.offset + space.scale * images if space.is_scaled else images
    if space.whole:
        values = values.round().clamp(0, LARGEST_PIXEL)
    if interface.input_rank == 3:
        values = values.squeeze(1)  # (N, H, W)
    elif interface.layout == "NHWC":
        values = values.permute(0, 2, 3, 1)  # (N, H, W, C)
    if interface.input_rank == 2:
        values = values.flatten(1)  # (N, C · H · W)
    return values.to(DTYPES[interface.input_type]).contiguous()


def from_input(values: Tensor, interface: TeacherInterface, space: InputSpace) -> Tensor:
    """Return the images (N, C, H, W) of the input space for what the file takes."""
    channels, height, width = space.shape
    images = values.to(torch.float32)
    if interface.input_rank == 3:
        images = images.unsqueeze(1)
    elif interface.layout == "NHWC":
        images = images if interface.input_rank == 4 else images.reshape(-1, height, width, channels)
        images = images.permute(0, 3, 1, 2)
    elif interface.input_rank == 2:
        images = images.reshape(-1, channels, height, width)
    return (images - space.offset) * (1 / space.scale) if space.is_scaled else images


def on_grid(images: Tensor, space: InputSpace) -> Tensor:
    """Return the nearest images (N, C, H, W) that the file can be given, which may be whole pixels only."""
    if not space.whole:
        return images
    pixels = (space.offset + space.scale * images).round().clamp(0, LARGEST_PIXEL)
    return (pixels - space.offset) * (1 / space.scale)


def to_output(logits: Tensor, interface: TeacherInterface) -> Tensor:
    """Return what the file returns for logits (N, num_classes)."""
    if interface.is_binary:
        values = logits[:, 1:] - logits[:, :1]  # (N, 1)
        if interface.output_form != "logits":
            values = torch.sigmoid(values)
    elif interface.output_form == "probabilities":
        values = logits.softmax(1)
    elif interface.output_form == "log-probabilities":
        values = logits.log_softmax(1)
    else:
        values = logits
    shape = tuple(interface.output_shape)
    if shape != (math.prod(shape),):
        values = values.reshape(-1, *shape)
    return values.to(DTYPES[interface.output_type])


def from_output(outputs: Tensor, interface: TeacherInterface) -> Tensor:
    """Return logits (N, num_classes) from what the file returns; those of probabilities are their logarithms."""
    values = outputs.to(torch.float32).reshape(len(outputs), -1)
    if interface.is_binary:
        if interface.output_form == "logits":
            return torch.cat([torch.zeros_like(values), values], 1)
        return torch.cat([(1 - values).clamp(min=SMALLEST_REST), values.clamp(min=SMALLEST)], 1).log()
    return values.clamp(min=SMALLEST).log() if interface.output_form == "probabilities" else values


class ServedNetwork(nn.Module):
    """A network that takes and returns what the teacher's file takes and returns."""

    def __init__(self, network: nn.Module, interface: TeacherInterface, space: InputSpace) -> None:
        super().__init__()
        self.network = network
        self.interface = interface
        self.space = space

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs in the file's form for inputs in the file's layout and element type."""
        logits: Tensor = self.network(from_input(inputs, self.interface, self.space))
        return to_output(logits, self.interface)
