"""Formats are recognised by content, and a refusal says how to convert the file."""

import contextlib
import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from dfkd_core.errors import FormatUnsupported, TeacherError, TeacherInvalid
from dfkd_core.inspection.formats import SNIFF_BYTES, TeacherFormat, sniff
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


def scripted() -> bytes:
    buffer = io.BytesIO()
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


def exported_program() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), buffer)
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
        (pickle.dumps({"a": 1}), "pickle", "save_file"),
        (pickle.dumps({"a": 1}, protocol=0), "pickle", "save_file"),
        (torch_file({"w": torch.zeros(2)}), "PyTorch", "save_file"),
        (torch_file({"w": torch.zeros(2)}, _use_new_zipfile_serialization=False), "pickle", "save_file"),
        (exported_program(), "torch.export", "torch.onnx.export"),
        (zipped("metadata.json", "config.json", "model.weights.h5"), "Keras", "tf2onnx"),
        (zipped("model/saved_model.pb"), "SavedModel", "tf2onnx"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "tf2onnx"),
        (zipped("model.onnx"), "zip", "not an archive"),
        (npz(), "NumPy", "torch.onnx.export"),
        (npy(), "NumPy", "torch.onnx.export"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(50), "TFLite", "original network"),
        (b"GGUF\x03\x00\x00\x00" + bytes(50), "GGUF", "ONNX"),
        (gzip.compress(b"hello", mtime=0), "gzip", "not an archive"),
        (tarred(), "tar", "not an archive"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML", "download"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "PNG", "torch.onnx.export"),
        (b"%PDF-1.7 " + bytes(50), "PDF", "torch.onnx.export"),
        (b"\x7fELF" + bytes(50), "ELF", "torch.onnx.export"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS", "git lfs pull"),
        (b'<?xml version="1.0"?><net></net>', "XML", "original network"),
        (b"just some words, nothing else", "text", "torch.onnx.export"),
        (b'{"model": "json"}', "text", "torch.onnx.export"),
        (bytes(range(128, 256)) * 3, "this kind", "torch.onnx.export"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # contents that hold a time would change the name
)
def test_what_is_not_a_teacher_is_refused_with_the_way_to_convert(content: bytes, what: str, hint: str) -> None:
    with pytest.raises(FormatUnsupported) as refusal:
        sniff(content[:SNIFF_BYTES], "teacher.onnx")
    assert what in refusal.value.detail
    assert refusal.value.hint is not None
    assert hint in refusal.value.hint


def test_torchscript_is_refused() -> None:
    with pytest.raises(FormatUnsupported) as refusal:
        sniff(scripted()[:SNIFF_BYTES])
    assert "TorchScript" in refusal.value.detail


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
    with pytest.raises(TeacherInvalid):
        sniff(content)


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_format_or_a_refusal(content: bytes) -> None:
    with contextlib.suppress(TeacherError):
        assert sniff(content) in TeacherFormat
