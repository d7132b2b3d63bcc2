"""The figures of a student in the report, against plain NumPy, SciPy and real ONNX Runtime sessions."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from scipy.stats import binomtest, entropy
from torch import Tensor, nn

from dfkd_core.images.batch import Batch
from dfkd_core.interface import TeacherInterface
from dfkd_core.networks.teacher import InputSpace
from dfkd_core.output.evaluate import (
    agreement,
    clopper_pearson,
    evaluate,
    kl_divergence,
    latency,
    versions,
    worst_class,
)
from dfkd_core.output.onnx_export import export_onnx
from dfkd_core.output.provenance import cpu_name
from dfkd_core.report import ClassAgreement
from tests.dfkd_core.interfaces import SIDE, classifier

pytestmark = pytest.mark.usefixtures("exporter_table")


def logits(count: int = 200, num_classes: int = 5, *, seed: int = 0) -> Tensor:
    return 3 * torch.randn(count, num_classes, generator=torch.Generator().manual_seed(seed))


def a_graph(path: Path, *, batch: int | str = "batch", dtype: int = TensorProto.FLOAT) -> Path:
    """images (batch, 1, 4, 4) → ReLU → logits of the same shape."""
    images = helper.make_tensor_value_info("x", dtype, [batch, 1, 4, 4])
    out = helper.make_tensor_value_info("y", dtype, [batch, 1, 4, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "tiny", [images], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 1), (97, 100), (2017, 2048), (500, 1000)])
def test_the_interval_is_the_exact_one(successes: int, n: int) -> None:
    reference = binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(successes, n) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_the_interval_holds_a_well_known_value() -> None:
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_no_share_has_no_interval(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        clopper_pearson(successes, n)


def test_kl_is_that_of_scipy_and_never_negative() -> None:
    teacher, student = logits(seed=1), logits(seed=2)
    p, q = (torch.softmax(one, 1).numpy() for one in (teacher, student))
    np.testing.assert_allclose(kl_divergence(teacher, student).numpy(), entropy(p, q, axis=1), rtol=1e-4)
    assert (kl_divergence(teacher, teacher) == 0).all()


def test_agreement_is_that_of_plain_numpy() -> None:
    teacher, student = logits(seed=1), logits(seed=1) + logits(seed=2) / 3
    found = agreement(teacher, student)
    t, s = teacher.numpy().astype(np.float64), student.numpy().astype(np.float64)
    same = t.argmax(1) == s.argmax(1)
    assert found.value == pytest.approx(same.mean())
    assert 0 < found.value < 1
    assert found.n == 200
    assert found.interval == pytest.approx(list(clopper_pearson(int(same.sum()), 200)))
    assert found.logit_diff_max == pytest.approx(np.abs(t - s).max())
    assert found.logit_diff_mean == pytest.approx(np.abs(t - s).mean())
    p, q = (np.exp(one) / np.exp(one).sum(1, keepdims=True) for one in (t, s))
    assert found.kl_mean == pytest.approx(entropy(p, q, axis=1).mean())
    assert found.kl_p95 == pytest.approx(np.percentile(entropy(p, q, axis=1), 95))
    for one in found.per_class:
        mine = t.argmax(1) == one.class_index
        assert one.count == mine.sum()
        assert one.agreement == pytest.approx(same[mine].mean())
    assert found.worst_class.agreement == min(one.agreement or 0 for one in found.per_class)


def test_a_class_without_images_has_no_agreement_and_is_never_the_worst() -> None:
    found = agreement(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
    assert [one.agreement for one in found.per_class] == [1.0, None, None]
    assert found.worst_class.class_index == 0


def test_of_equally_bad_classes_the_one_with_more_images_is_named() -> None:
    few, many = (ClassAgreement(class_index=i, count=n, agreement=0.5) for i, n in ((0, 2), (1, 20)))
    assert worst_class([few, many]) == many


@pytest.mark.parametrize("shape", [(4, 3), (5, 5)])
def test_logits_that_do_not_belong_together_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        agreement(torch.zeros(4, 5), torch.zeros(shape))


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        agreement(torch.zeros(0, 5), torch.zeros(0, 5))


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_a_student_is_measured_on_its_file_in_the_form_that_it_returns(form: str, tmp_path: Path) -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    images = torch.randn(70, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = student(images) + 5.0  # the same probabilities as without the offset
    interface = TeacherInterface(layout="NHWC", output_shape=[3], output_form=form)
    space = InputSpace((1, 2, 2), (-1.0,), (1.0,), True)
    export_onnx(student, tmp_path / "student.onnx", interface, space)
    found = evaluate(tmp_path / "student.onnx", Batch(images, expected), interface, space, chunk=32)
    assert (found.value, found.n) == (1.0, 70)
    assert found.kl_mean < 1e-6
    assert found.logit_diff_max == pytest.approx(5.0 if form == "logits" else 0.0, abs=1e-4)


def test_latency_is_measured_and_says_how(tmp_path: Path) -> None:
    found = latency(a_graph(tmp_path / "net.onnx"), (1, 4, 4), threads=2, batch=3, repeats=20)
    assert 0 < found.p5_ms <= found.median_ms <= found.p95_ms
    assert (found.repeats, found.threads, found.batch) == (20, 2, 3)
    assert found.cpu == cpu_name() != ""


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_latency_follows_the_graph_in_type_and_fixed_batch(tmp_path: Path, dtype: int) -> None:
    path = a_graph(tmp_path / "net.onnx", batch=2, dtype=dtype)
    assert latency(path, (1, 4, 4), batch=1, repeats=5).batch == 2


def test_a_file_that_declares_no_shape_is_timed_too(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(classifier(dims=None).SerializeToString())
    assert latency(path, (3, SIDE, SIDE), batch=2, repeats=5).batch == 2


@pytest.mark.parametrize(("name", "module"), [("torch", torch), ("onnx", onnx)])
def test_versions_are_those_imported(name: str, module: object) -> None:
    assert getattr(versions(), name) == str(module.__version__)  # type: ignore[attr-defined]


def test_not_a_number_never_becomes_a_report() -> None:
    worst: Callable[[], object] = lambda: agreement(torch.full((1, 2), math.nan), torch.zeros(1, 2))  # noqa: E731
    with pytest.raises(ValueError, match="finite"):
        worst()
