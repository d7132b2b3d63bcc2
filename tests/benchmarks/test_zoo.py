"""The zoo of other packages: what its record keeps, where a run goes on, and that the page shows the record."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.teacher_zoo import Cell
from benchmarks.zoo import shelf
from benchmarks.zoo.reading import exports, read
from benchmarks.zoo.record import PAGE, Record, page, with_matrix
from dfkd_core.spec.teacher import TeacherSpec
from dfkd_core.teachers import load_teacher
from tests.dfkd_core.onnx_models import classifier, save

CELLS = [
    Cell("vit", "dynamo", "read", parity=1e-7, gradient=2e-6),
    Cell("vit", "legacy", "teacher-op-unsupported", "If — has a sub-graph"),
    Cell("lenet", "legacy", "cannot-export", "ValueError: no"),
]


def test_the_record_is_read_back_as_it_was_written_and_a_run_goes_on_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    Record.add("timm", CELLS[:2], {"timm": "1"}, path)
    Record.add("timm", CELLS[2:], {"timm": "2"}, path)
    record = Record.load(path)
    assert sorted(record.cells["timm"], key=CELLS.index) == CELLS
    assert record.versions == {"timm": {"timm": "2"}}
    listed = {"vit": ["dynamo", "legacy"], "lenet": ["dynamo", "legacy"]}
    assert record.missing("timm", listed, again=False) == {"dynamo": ["lenet"]}
    assert record.missing("timm", listed, again=True) == {"dynamo": ["lenet"], "legacy": ["vit", "lenet"]}
    assert record.missing("keras", listed, again=False)["dynamo"] == ["vit", "lenet"]


def test_the_matrix_counts_and_gives_every_reason() -> None:
    text = page(Record({"timm": CELLS}, {"timm": {"timm": "1"}}))
    assert "2 families of 1 packages, 2 exports, 1 of them (50%) read; 1 more fail in the exporters themselves" in text
    assert "| timm | legacy | 2 | 0 | 1 | 1 |" in text
    assert "- vit (legacy): `teacher-op-unsupported`, If — has a sub-graph" in text
    assert "- lenet (legacy): `ValueError: no`" in text
    assert "three times" not in text
    rounded = Cell("resnet", "legacy", "read", parity=1e-6, gradient=2e-3, rounding=1e-3)
    text = page(Record({"timm": [*CELLS, rounded]}, {"timm": {"timm": "1"}}))
    assert "the largest error of the gradient at the images 2e-06 of the original's (allowed: 1e-03); where" in text
    assert "resnet of timm (legacy): 2e-03, rounding 1e-03. A cell" in text


def test_an_exporter_leaves_its_failure_with_the_reason(tmp_path: Path) -> None:
    def write(family: str, way: str, path: Path) -> None:
        path.write_bytes(b"half")
        np.savez(shelf.beside(path, ".npz"), images1=np.zeros(1))
        raise ValueError(f"{family} cannot\n{way}")

    shelf.attempt("net-0.5", "legacy", tmp_path / "net-0.5.legacy.onnx", write)
    (path,) = exports(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net-0.5.legacy.txt"]
    assert read(path) == Cell("net-0.5", "legacy", "cannot-export", "ValueError: net-0.5 cannot")


def failed(folder: Path, fail: Callable[[], None]) -> str:
    """The reason that is read where an export failed so."""
    shelf.attempt("net", "dynamo", folder / "net.dynamo.onnx", lambda *_: fail())
    return read(folder / "net.dynamo.onnx").because


class GuardOnData(Exception):
    """An error whose name does not say that it is one."""


def test_the_reason_of_an_exporter_is_the_cause_without_colours_and_paths(tmp_path: Path) -> None:
    def wrap(cause: Exception) -> None:
        try:
            try:
                raise cause
            except Exception as error:
                raise RuntimeError("decomposition failed\nValueError: a line of the message") from error
        except RuntimeError as error:
            raise ValueError("step 2/3 failed\n\n## Exception summary\n\nRuntimeError: decomposition failed") from error

    no_view = ValueError("\x1b[96mno\x1b[0m view /opt/env/lib/nets.py:12\nwhile executing it")
    assert failed(tmp_path, lambda: wrap(no_view)) == "ValueError: no view nets.py:12"
    assert failed(tmp_path, lambda: wrap(GuardOnData("u0 is 1"))).endswith("GuardOnData: u0 is 1")
    assert failed(tmp_path, lambda: wrap(AssertionError())) == "AssertionError"


def test_the_reason_of_an_exporter_that_tried_two_ways_is_that_of_the_last(tmp_path: Path) -> None:
    def try_two() -> None:
        try:
            raise ValueError("the first way")
        except ValueError:
            try:
                raise KeyError("the second way")
            except KeyError as error:
                raise RuntimeError("neither way") from error

    assert failed(tmp_path, try_two) == "KeyError: 'the second way'"


def stored(folder: Path, *, logits: float = 1.0, gradient: float = 1.0) -> Path:
    """An export, and beside it what it says itself, with factors."""
    path = save(classifier(), folder / "net.legacy.onnx")
    teacher = load_teacher(path, TeacherSpec())
    images = torch.randn(3, *teacher.input_space.shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    said = teacher(images)
    weights = torch.randn(said.shape, generator=torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad((said * weights).sum(), images)
    arrays = {"images3": images, "logits3": logits * said, "weights3": weights, "gradient3": gradient * slope}
    np.savez(shelf.beside(path, ".npz"), **{name: tensor.detach().numpy() for name, tensor in arrays.items()})
    return path


def test_an_export_is_read_where_logits_and_gradient_are_the_originals(tmp_path: Path) -> None:
    found = read(stored(tmp_path))
    assert found.verdict == "read"
    assert found.rounding is None  # the gradient in float32 is within its limit


def test_a_gradient_beyond_its_rounding_is_wrong(tmp_path: Path) -> None:
    found = read(stored(tmp_path, gradient=1.01))
    assert found.verdict == "wrong"
    assert found.gradient == pytest.approx(0.01 / 1.01, rel=1e-3)
    assert found.rounding is not None
    assert found.rounding < 1e-5


def test_a_file_that_is_another_network_for_onnx_runtime_too_is_the_exporters_fault(tmp_path: Path) -> None:
    found = read(stored(tmp_path, logits=1.5))
    assert found.verdict == "cannot-export"
    assert "in ONNX Runtime too, its logits differ by 3e-01 of the largest" in found.because


def test_the_page_shows_the_record_and_nothing_is_computed_wrongly() -> None:
    text, record = PAGE.read_text(encoding="utf-8"), Record.load()
    assert with_matrix(text, record) == text
    assert not [cell for cells in record.cells.values() for cell in cells if cell.verdict == "wrong"]
    assert record.versions.keys() == record.cells.keys()
