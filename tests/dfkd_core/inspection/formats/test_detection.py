"""Formats are recognised by content, and a refusal says how to convert the file."""

import contextlib
import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from dfkd_core.errors import FormatUnsupported, TeacherError, TeacherInvalid
from dfkd_core.inspection.formats.detection import SNIFF_BYTES, TeacherFormat, sniff, sniff_file
from tests.dfkd_core.onnx_models import classifier


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def torch_file(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../model.onnx"))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.zeros(3))
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        (pickle.dumps({"a": 1}), "pickle", "dfkd submit mynet.py:Net --weights"),
        (pickle.dumps({"a": 1}, protocol=0), "pickle", "dfkd submit mynet.py:Net --weights"),
        (torch_file({"w": torch.zeros(2)}), "file of weights", "dfkd submit mynet.py:Net --weights"),
        (torch_file({"w": torch.zeros(2)}, _use_new_zipfile_serialization=False), "pickle", "dfkd export-teacher"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x1bsklearn.ensemble._forest", "scikit-learn", "on images"),
        (zipped("metadata.json", "config.json", "model.weights.h5"), "Keras", "keras.saving.load_model"),
        (zipped("model/saved_model.pb"), "SavedModel", "tf2onnx"),
        (b"\x08\x01\x12\xf0\xa4\x01\n\x30\n\x05serve" + bytes(100), "SavedModel", "tf2onnx"),
        (b"\n\x28\n\x05input\x12\x0bPlaceholder" + bytes(100), "frozen TensorFlow", "--graphdef"),
        (b"\n\xc0\x3e\x08\x00\x1a\x04feed" + bytes(100), "PaddlePaddle", "paddle2onnx"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(100), "MATLAB", "exportONNXNetwork"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "model.h5"),
        (zipped("deep/model.onnx"), "a zip archive", "In it lies deep/model.onnx"),
        (zipped("MAR-INF/MANIFEST.json", "model.pt"), "TorchServe", "Unpack"),
        (zipped(), "a zip archive", "A teacher is an ONNX file"),
        (npz(), "NumPy", "dfkd export-teacher"),
        (npy(), "NumPy", "dfkd export-teacher"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(50), "TFLite", "--tflite"),
        (b"GGUF\x03\x00\x00\x00" + bytes(50), "GGUF", "ONNX"),
        (gzip.compress(b"hello", mtime=0), "gzip", "Unpack"),
        (tarred(), "tar", "Unpack"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML", "download"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "PNG", "ONNX file"),
        (b"%PDF-1.7 " + bytes(50), "PDF", "ONNX file"),
        (b"\x7fELF" + bytes(50), "ELF", "ONNX file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS", "git lfs pull"),
        (b'<?xml version="1.0"?><net></net>', "XML", "from which it was made"),
        (b"just some words, nothing else", "text", "ONNX file"),
        (b'{"model": "json"}', "text", "ONNX file"),
        (bytes(5000), "zeros", "did not finish"),
        (bytes(range(128, 256)) * 3, "no ONNX, whatever its name says", "ONNX file"),
        (b"\x08\x07 begins like an ONNX file, but goes on like this", "no ONNX, whatever its name says", "ONNX file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # contents that hold a time would change the name
)
def test_what_is_not_a_teacher_is_refused_with_the_way_to_convert(
    content: bytes, what: str, hint: str, tmp_path: Path
) -> None:
    refusal = refused(content, tmp_path)
    assert what in refusal.detail
    assert hint in str(refusal.hint)
    assert "truncated" not in refusal.detail


def refused(content: bytes, folder: Path) -> FormatUnsupported:
    (folder / "teacher.onnx").write_bytes(content)
    with pytest.raises(FormatUnsupported) as refusal:
        sniff_file(folder / "teacher.onnx")
    return refusal.value


def network(floats: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, floats // 16))


def scripted(floats: int) -> bytes:
    buffer = io.BytesIO()
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.save(torch.jit.trace(network(floats), torch.zeros(1, 1, 4, 4)), buffer)
    return buffer.getvalue()


def exported_program(floats: int) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(network(floats), (torch.zeros(1, 1, 4, 4),)), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("floats", [32, 32_000, 1_000_000])
@pytest.mark.parametrize(
    ("save", "what", "hint"),
    [
        (scripted, "a TorchScript archive", "torch.jit.load"),
        (exported_program, "a torch.export archive", "torch.export.load"),
        (lambda floats: torch_file(network(floats).state_dict()), "a PyTorch file of weights", "--weights model.pt"),
    ],
    ids=["TorchScript", "torch.export", "weights"],
)
def test_archives_of_pytorch_are_told_apart_whatever_their_size(
    save: Callable[[int], bytes], what: str, hint: str, floats: int, tmp_path: Path
) -> None:
    refusal = refused(save(floats), tmp_path)
    assert what in refusal.detail
    assert hint in str(refusal.hint)
    assert "dfkd export-teacher" in str(refusal.hint)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    for content in (pickle.dumps(Canary(tmp_path / "touched")), torch_file(Canary(tmp_path / "touched"))):
        with pytest.raises(FormatUnsupported):
            sniff(content[:SNIFF_BYTES])
    assert not (tmp_path / "touched").exists()


def test_the_name_does_not_decide() -> None:
    assert sniff(classifier().SerializeToString(), "teacher.pt") is TeacherFormat.ONNX
    assert sniff(save({"w": torch.zeros(2)}), "teacher.onnx") is TeacherFormat.SAFETENSORS


@pytest.mark.parametrize("count", [1, 4, 6, 10, 40, 300])
def test_safetensors_of_any_header_length_are_not_taken_for_pickles(count: int) -> None:
    content = save({f"layer.{index}.weight": torch.zeros(3, 3) for index in range(count)})
    assert sniff(content[:SNIFF_BYTES]) is TeacherFormat.SAFETENSORS


def test_every_header_length_is_safetensors() -> None:
    for length in range(2, 3000):
        head = length.to_bytes(8, "little") + b'{"__metadata__":{}}'.ljust(length)
        assert sniff(head[:SNIFF_BYTES]) is TeacherFormat.SAFETENSORS


@pytest.mark.parametrize("content", [b"", b"\x08", b"\x80\x01\x02\x03\x04\x05\x06"])
def test_nothing_and_stubs_are_broken_files(content: bytes) -> None:
    with pytest.raises(TeacherInvalid) as refusal:
        sniff(content, "teacher.onnx")
    assert ("empty" if not content else f"has {len(content)} bytes") in refusal.value.detail
    assert "truncated" not in refusal.value.detail


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_format_or_a_refusal(content: bytes) -> None:
    with contextlib.suppress(TeacherError):
        assert sniff(content) in TeacherFormat
