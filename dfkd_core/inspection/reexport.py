"""The export call that would give a better file of the same network. This module is torch-free."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from dfkd_core.inspection.formats.refused import MATLAB, PADDLE
from dfkd_core.interface import InputType, TeacherInterface
from dfkd_core.onnx_import.producer import DYNAMO

EXPORT_LINE = (
    "torch.onnx.export(model.eval(), (images,), 'teacher.onnx', dynamo=False, "
    "training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, "
    "input_names=['images'], output_names=['logits'], dynamic_axes={'images': {0: 'batch'}, 'logits': {0: 'batch'}})"
)
"""This call keeps the BatchNormalization statistics, which both exporters fold into convolutions by default."""

_DYNAMO_LINE = (
    "torch.onnx.export(model.eval(), ({images},), 'teacher.onnx', dynamo=True, optimize=False, external_data=False, "
    "input_names=['{input}'], output_names=[{outputs}], dynamic_shapes=({{0: torch.export.Dim('batch')}},))"
)
_LEGACY_LINE = (
    "torch.onnx.export(model.eval(), ({images},), 'teacher.onnx', dynamo=False, "
    "training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, input_names=['{input}'], "
    "output_names=[{outputs}], dynamic_axes={{{axes}}})"
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


def export_line(
    exporter: str | None, interface: TeacherInterface, *, outputs: Sequence[str], shape: Sequence[int]
) -> str | None:
    """Return a call of the exporter that wrote the file, or of PyTorch's if it is unknown; None if no call is better.

    The calls keep BatchNorm statistics, and those of PyTorch a dynamic batch size. `outputs` are the names of all
    outputs of the file, `shape` that of its images (C, H, W).
    """
    if exporter in _LOSING:
        return None
    if exporter in _OTHERS:
        return _OTHERS[exporter]
    template = _DYNAMO_LINE if exporter == DYNAMO else _LEGACY_LINE
    names = [interface.input_name, *outputs]
    return template.format(
        images=_random_images((2, *interface.dims_of(shape)), interface.input_type),
        input=interface.input_name,
        outputs=", ".join(f"'{name}'" for name in outputs),
        axes=", ".join(f"'{name}': {{0: 'batch'}}" for name in names),
    )


def _random_images(sizes: Sequence[int], kind: InputType) -> str:
    """Return the expression that makes an input of a file's element type."""
    listed = ", ".join(map(str, sizes))
    if kind == "uint8":
        return f"torch.randint(0, 256, ({listed}), dtype=torch.uint8)"
    return f"torch.randn({listed})" if kind == "float32" else f"torch.randn({listed}, dtype=torch.{kind})"


def re_export(line: str | None, *, batchnorm: str, batch: str) -> ReExport | None:
    """Return the reasons for a new export and its call; None if a new export would improve nothing."""
    if line is None:
        return None
    because = [_LOST[batchnorm]] if batchnorm in _LOST else []
    if batch == "fixed":
        because.append("the batch size is fixed, and had to be rewritten")
    return ReExport(because=because, line=line) if because else None
