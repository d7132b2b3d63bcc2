"""ONNX models that keep their weights in a second file: found without onnx, put into one file, and sent as one."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from dfkd.client import BadTeacher, Client
from dfkd.external_data import LARGEST_BYTES, data_files, one_file
from tests.dfkd.two_files import export_in_two_files, network
from tests.patience import PATIENCE
from tests.service.conftest import SPEC
from tests.service.harness import ROOT, Service

pytestmark = pytest.mark.usefixtures("exporter_table")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its weights in two files of PyTorch's."""
    return export_in_two_files(tmp_path_factory.mktemp("exported") / "net.onnx")


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """Copies of the two files, to be spoilt."""
    for path in (exported, exported.with_name("net.onnx.data")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / "net.onnx"


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, patience_seconds=0) as opened:
        yield opened


def test_the_second_file_is_found_and_the_two_become_one_that_computes_the_same(exported: Path) -> None:
    assert data_files(exported) == ["net.onnx.data"]
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with one_file(exported) as merged, one_file(exported) as again:
        assert data_files(merged) == []
        assert merged.read_bytes() == again.read_bytes()
        session = onnxruntime.InferenceSession(merged, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"images": images.numpy()})
    assert not merged.exists()
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(logits), network()(images), atol=1e-5)


def test_a_file_that_holds_everything_is_sent_as_it_is(teacher: bytes, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    for content in (teacher, b"", b"\x08", (1000).to_bytes(8, "little") + b'{"a\n\x08location\x12\x01a'):
        path.write_bytes(content)
        assert data_files(path) == []
        with one_file(path) as same:
            assert same == path


def test_the_word_location_elsewhere_in_a_model_is_no_second_file(teacher: bytes, tmp_path: Path) -> None:
    model = onnx.load_from_string(teacher)
    helper.set_model_props(model, {"location": "somewhere"})
    model.graph.value_info.append(helper.make_tensor_value_info("location", onnx.TensorProto.FLOAT, [1]))
    model.graph.node[0].doc_string = "\n\x08location\x12\x09elsewhere"
    onnx.save(model, tmp_path / "teacher.onnx")
    assert data_files(tmp_path / "teacher.onnx") == []


@pytest.mark.parametrize("name", ["w", "x" * 115, "x" * 116, "x" * 200, "ä.data"])
def test_names_of_any_length_are_found(teacher: bytes, tmp_path: Path, name: str) -> None:
    model = onnx.load_from_string(teacher)
    onnx.save(model, tmp_path / "teacher.onnx", save_as_external_data=True, location=name, size_threshold=0)
    assert data_files(tmp_path / "teacher.onnx") == [name]
    with one_file(tmp_path / "teacher.onnx") as merged:
        assert weights_of(onnx.load(merged)) == weights_of(onnx.load_from_string(teacher))


def weights_of(model: onnx.ModelProto) -> dict[str, bytes]:
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}


def test_both_ways_to_send_it_send_one_file(client: Client, exported: Path) -> None:
    job = client.submit(exported, SPEC)
    with one_file(exported) as merged:
        assert job.teacher.id == hashlib.sha256(merged.read_bytes()).hexdigest()
    assert client.upload(exported).id == job.teacher.id
    client.cancel(job.id)


def relocated(path: Path, name: str) -> None:
    """Make the model name another file."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name
    path.write_bytes(model.SerializeToString())


def absent(path: Path) -> None:
    path.with_name("net.onnx.data").unlink()


def linked(path: Path) -> None:
    data = path.with_name("net.onnx.data")
    data.rename(path.with_name("elsewhere"))
    data.symlink_to("elsewhere")


def piped(path: Path) -> None:
    absent(path)
    os.mkfifo(path.with_name("net.onnx.data"))


def too_large(path: Path) -> None:
    os.truncate(path.with_name("net.onnx.data"), LARGEST_BYTES)  # a hole: it takes no room


def cut_short(path: Path) -> None:
    os.truncate(path.with_name("net.onnx.data"), 100)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (absent, "keeps its weights in net.onnx.data, which is not beside it"),
        (linked, "is a link or no plain file"),
        (piped, "is a link or no plain file"),
        (lambda path: relocated(path, "../secret"), "'../secret', which is not a name in its own folder"),
        (lambda path: relocated(path, "/etc/hostname"), "'/etc/hostname', which is not a name in its own folder"),
        (lambda path: relocated(path, "below/weights"), "'below/weights', which is not a name in its own folder"),
        (lambda path: relocated(path, ".."), "'..', which is not a name in its own folder"),
        (too_large, "have 2.1 GB; one ONNX file holds at most 2 GB"),
        (cut_short, "net.onnx and net.onnx.data do not go together"),
    ],
)
def test_what_cannot_become_one_file_is_not_sent(
    client: Client, model: Path, spoil: Callable[[Path], None], words: str
) -> None:
    before = client.jobs(limit=1)
    spoil(model)
    for send in (lambda: client.submit(model, SPEC), lambda: client.upload(model)):
        with pytest.raises(BadTeacher) as refused:
            send()
        assert words in refused.value.detail
        assert refused.value.hint
    assert client.jobs(limit=1) == before


def test_without_onnx_it_says_what_to_install_or_how_to_export(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "onnx.py").write_text("raise ModuleNotFoundError('no onnx here', name='onnx')\n")
    command = [sys.executable, "-m", "dfkd.cli.main", "submit", str(exported), "--student", "lenet5_half"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (ended.returncode, ended.stdout) == (2, "")
    said = " ".join(ended.stderr.split())
    assert "keeps its weights in net.onnx.data" in said
    assert "pip install 'dfkd[teacher]'" in said
    assert "external_data=False" in said
