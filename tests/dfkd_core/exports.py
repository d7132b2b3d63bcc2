"""The zoo, exported in every way that people export: default and legacy exporter, old and new operator sets."""

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.onnx import TrainingMode

from tests.dfkd_core import zoo


@dataclass(frozen=True)
class Way:
    """One way to export."""

    dynamo: bool
    opset: int | None = None
    optimize: bool = True
    fold: bool = True
    training: TrainingMode = TrainingMode.EVAL
    batch: int | None = None  # None: dynamic

    def keeps_statistics(self) -> bool:
        """Whether BatchNormalization nodes survive."""
        return not self.optimize if self.dynamo else not self.fold


WAYS = {
    "dynamo": Way(dynamo=True),
    "dynamo unoptimised": Way(dynamo=True, optimize=False),
    "dynamo 18": Way(dynamo=True, opset=18),
    "dynamo 23": Way(dynamo=True, opset=23),
    "dynamo batch 1": Way(dynamo=True, batch=1),
    "legacy": Way(dynamo=False),
    "legacy 11": Way(dynamo=False, opset=11),
    "legacy 13 unfolded": Way(dynamo=False, opset=13, fold=False),
    "legacy 17": Way(dynamo=False, opset=17),
    "legacy preserve": Way(dynamo=False, fold=False, training=TrainingMode.PRESERVE),
    "legacy training": Way(dynamo=False, fold=False, training=TrainingMode.TRAINING),
    "legacy batch 1": Way(dynamo=False, batch=1),
    "legacy batch 3": Way(dynamo=False, batch=3),
}


@functools.cache
def exported(name: str, way: str, directory: Path) -> tuple[nn.Module, Path]:
    """A net of the zoo as it is after its export (which may move statistics), in eval mode, and the file."""
    net, chosen = zoo.build(name), WAYS[way]
    path = directory / f"{name} {way}.onnx"
    images = torch.randn(chosen.batch or 2, *zoo.SHAPE, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if chosen.dynamo:
            _export_dynamo(net, images, path, chosen)
        else:
            _export_legacy(net, images, path, chosen)
    return net.eval(), path


def _export_dynamo(net: nn.Module, images: torch.Tensor, path: Path, way: Way) -> None:
    torch.onnx.export(
        net,
        (images,),
        path,
        dynamo=True,
        opset_version=way.opset,
        optimize=way.optimize,
        external_data=False,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=None if way.batch else ({0: torch.export.Dim("batch")},),
    )


def _export_legacy(net: nn.Module, images: torch.Tensor, path: Path, way: Way) -> None:
    torch.onnx.export(
        net,
        (images,),
        path,
        dynamo=False,
        opset_version=way.opset,
        do_constant_folding=way.fold,
        training=way.training,
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes=None if way.batch else {"images": {0: "batch"}, "logits": {0: "batch"}},
    )
