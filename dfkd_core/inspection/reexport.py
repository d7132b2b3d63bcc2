"""The export call that would give a better file of the same network. This module is torch-free."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from dfkd_core.inspection.formats.refused import MATLAB, PADDLE
from dfkd_core.onnx_import.producer import DYNAMO

EXPORT_LINE = (
    "torch.onnx.export(model.eval(), (images,), 'teacher.onnx', dynamo=False, "
    "training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, "
    "input_names=['images'], output_names=['logits'], dynamic_axes={'images': {0: 'batch'}, 'logits': {0: 'batch'}})"
)
"""This call keeps the BatchNormalization statistics, which both exporters fold into convolutions by default."""

_DYNAMO_LINE = (
    "torch.onnx.export(model.eval(), ({images},), 'teacher.onnx', dynamo=True, optimize=False, external_data=False, "
    "input_names=['{input}'], output_names=['{output}'], dynamic_shapes=({{0: torch.export.Dim('batch')}},))"
)
_LEGACY_LINE = (
    "torch.onnx.export(model.eval(), ({images},), 'teacher.onnx', dynamo=False, "
    "training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, input_names=['{input}'], "
    "output_names=['{output}'], dynamic_axes={{'{input}': {{0: 'batch'}}, '{output}': {{0: 'batch'}}}})"
)
_OTHERS = {"paddle2onnx": PADDLE, "matlab": MATLAB}
_LOSING = ("tf2onnx", "keras2onnx", "skl2onnx")  # no call of these writes BatchNormalization, or the network has none
_LOST = {
    "folded": "the exporter folded the BatchNorm statistics into the convolutions",
    "partial": "the exporter folded some of the BatchNorm statistics into the convolutions",
    "unknown": "nobody can tell whether the network had BatchNorm; if it had, its statistics are folded",
}


class ReExport(BaseModel):
    """The export call that would give a better file of the same network, and the reasons for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    because: list[str] = Field(description="What a new export would improve.")
    line: str = Field(description="The call to run where the network was trained.")


def export_line(exporter: str | None, *, input_name: str, output_name: str, shape: Sequence[int]) -> str | None:
    """Return a call of the exporter that wrote the file, or of PyTorch's if it is unknown; None if no call is better.

    The calls keep BatchNorm statistics, and those of PyTorch a dynamic batch size.
    """
    if exporter in _LOSING:
        return None
    if exporter in _OTHERS:
        return _OTHERS[exporter]
    template = _DYNAMO_LINE if exporter == DYNAMO else _LEGACY_LINE
    images = f"torch.randn(2, {', '.join(map(str, shape))})"
    return template.format(images=images, input=input_name, output=output_name)


def re_export(line: str | None, *, batchnorm: str, batch: str) -> ReExport | None:
    """Return the reasons for a new export and its call; None if a new export would improve nothing."""
    if line is None:
        return None
    because = [_LOST[batchnorm]] if batchnorm in _LOST else []
    if batch == "fixed":
        because.append("the batch size is fixed, and had to be rewritten")
    return ReExport(because=because, line=line) if because else None
