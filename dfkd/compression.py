"""`compress`: from a trained PyTorch network to a finished job.

    job = dfkd.compress(model, input_shape=(3, 32, 32), mean=[0.49, 0.48, 0.45], std=[0.25, 0.24, 0.26], save_to="out")

The network is exported on this machine, in this process, and only the exported file is sent. PyTorch and the libraries
of the extra `teacher` are imported when the function is called.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dfkd.client import Client
from dfkd.errors import BadTeacher, UsageError
from dfkd.wire.job import JobView

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from torch import nn

Json = Mapping[str, Any]  # Any: JSON


def compress(
    model: "nn.Module",
    *,
    input_shape: Sequence[int],
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    student: str | Json | None = None,
    spec: Json | None = None,
    save_to: Path | str | None = None,
    wait: bool = True,
    timeout_seconds: float | None = None,
    on_update: Callable[[JobView], None] | None = None,
    logits: str | int | None = None,
    batch: int | None = None,
    url: str = "http://127.0.0.1:8000",
    api_key: str | None = None,
    key: str | None = None,
    **fields: Any,  # Any: JSON
) -> JobView:
    """Export a trained image classifier, submit it, and wait for its student → the finished job.

    The model is not changed. A copy of it, in eval mode, on the CPU and in float32, is written as ONNX with its
    BatchNorm statistics, compared with the model, and checked as the service will check it.

    `input_shape`: (channels, height, width) of one image.
    `mean`, `std`: what the caller's pipeline subtracts from pixels in [0, 1] and divides by, per channel or one for
        all; 0 and 1 for a network that normalises by itself.
    `student`: the name of an architecture, or the spec's `student` object. Without one the student is the model itself
        at half width ("teacher").
    `spec`: the whole spec, as a mapping. What the keywords say takes precedence.
    `fields`: members of the spec by name: `distillation={"seed": 7}`, `accept=…`, `export=…`, `name=…`, `labels=…`,
        `device=…`, `teacher={"input": {"range": [0, 255]}}`.
    `save_to`: the directory for the student's files, if the job succeeds.
    `wait`: False returns the queued job. Otherwise `state` says how the job has ended; `timeout_seconds` and
        `on_update` are those of `Client.wait`.
    `logits`: which of several outputs of the network are the logits, by name or number.
    `batch`: the batch size of a network that takes no other.
    `url`, `api_key`: as for `Client`; `key`: as for `Client.submit`.

    Raises:
        BadTeacher: the model cannot be exported, or no service would take it; nothing was sent.
        UsageError: the arguments contradict each other; nothing was sent.
        Refused: the service refuses the spec, or the teacher with this spec.
        Unreachable: the service does not answer.
        WaitTimeout: the job is still live after `timeout_seconds`. It goes on.
    """
    if save_to is not None and not wait:
        raise UsageError("save_to needs the finished job: leave wait=False out, or download the files later")
    document = _document(input_shape, mean=mean, std=std, student=student, spec=spec or {}, fields=fields)
    with Client(url, api_key=api_key) as client:
        with tempfile.TemporaryDirectory(prefix="dfkd-") as folder:
            path = Path(folder) / "teacher.onnx"
            _export(model, path, document["teacher"]["input"], logits=logits, batch=batch)
            job = client.submit(path, document, key=key)
        if not wait:
            return job
        job = client.wait(job.id, timeout_seconds=timeout_seconds, on_update=on_update)
        if save_to is not None and job.state == "succeeded":
            client.download(job.id, Path(save_to))
        return job


def _document(
    input_shape: Sequence[int],
    *,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    student: str | Json | None,
    spec: Json,
    fields: Json,
) -> dict[str, Any]:
    """Return the spec: what `spec` says, then the members of `fields`, then what has a keyword of its own."""
    shape = [int(size) for size in input_shape]
    if len(shape) != 3 or min(shape) < 1:
        raise UsageError(f"input_shape is (channels, height, width) of one image, without the batch; not {shape}")
    said = {"mean": mean, "std": std}
    told = {name: _by_channel(value, shape[0]) for name, value in said.items() if value is not None}
    document = _merged(_merged(spec, fields), {"teacher": {"input": {"shape": shape, **told}}})
    if student is not None:
        return _merged(document, {"student": {"architecture": student} if isinstance(student, str) else student})
    return _merged({"student": {"architecture": "teacher"}}, document)


def _merged(below: Json, above: Json) -> dict[str, Any]:
    """Return one document of two: objects that both have are merged, otherwise `above` has the last word."""
    document = dict(below)
    for name, value in above.items():
        both = isinstance(value, Mapping) and isinstance(document.get(name), Mapping)
        document[name] = _merged(document[name], value) if both else value
    return document


def _by_channel(value: float | Sequence[float], channels: int) -> list[float]:
    """Return one number for each channel. NumPy's arrays and tensors of one dimension are sequences too."""
    try:
        return [float(one) for one in value]  # type: ignore[union-attr]  # a number is no sequence
    except TypeError:
        return [float(value)] * channels  # type: ignore[arg-type]  # as above


def _export(model: object, path: Path, space: Json, *, logits: str | int | None, batch: int | None) -> None:
    """Write the model to `path`.

    Raises:
        BadTeacher: it cannot be exported, or no service would take it.
    """
    from dfkd_core.errors import DfkdError
    from dfkd_core.extras import MissingExtra, require_export

    try:
        require_export()
    except MissingExtra as error:
        raise BadTeacher(str(error), code="extra-missing") from None
    from torch import nn

    from dfkd_core.exporting.teacher import export_module

    if not isinstance(model, nn.Module):
        hint = "The file of a teacher goes to Client.submit; a function can be put into a torch.nn.Module."
        raise BadTeacher(f"compress takes a torch.nn.Module, not a {type(model).__name__}", hint=hint)
    try:
        export_module(
            model,
            path,
            input_shape=space["shape"],
            mean=space.get("mean"),
            std=space.get("std"),
            pixel_range=space.get("range"),
            logits=logits,
            batch=batch,
        )
    except ValidationError as error:
        raise UsageError("; ".join(_complaint(one) for one in error.errors())) from None
    except DfkdError as error:
        nodes = getattr(error, "nodes", [])
        raise BadTeacher(error.detail, code=error.code, hint=error.hint, nodes=nodes) from error


def _complaint(error: "ErrorDetails") -> str:
    """Return the path of a field of `teacher.input`, and what is wrong with it."""
    from dfkd_core.spec.explanation import explained
    from dfkd_core.spec.teacher import InputSpec

    path = ".".join(["teacher.input", *map(str, error["loc"])])
    return f"{path}: {explained(error, InputSpec)}"
