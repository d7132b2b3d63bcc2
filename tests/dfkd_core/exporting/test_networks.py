"""Networks as people have them: wrapped, in training, in half precision, on odd settings, with several outputs."""

import warnings
from collections import namedtuple
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import weight_norm

from dfkd_core.errors import ParityError, TeacherInvalid
from dfkd_core.exporting.request import Exported
from dfkd_core.exporting.teacher import export_module

pytestmark = pytest.mark.usefixtures("exporter_table")

SHAPE = [3, 16, 16]


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    )


def exported(network: nn.Module, tmp_path: Path, **more: Any) -> Exported:
    return export_module(network, tmp_path / "teacher.onnx", input_shape=SHAPE, **more)


def state_of(network: nn.Module) -> dict[str, object]:
    """Everything that an export must leave alone."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {
        "values": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "ids": {name: id(tensor) for name, tensor in tensors.items()},
        "kinds": {name: (tensor.dtype, tensor.device, tensor.requires_grad) for name, tensor in tensors.items()},
        "gradients": {name: tensor.grad for name, tensor in tensors.items()},
        "modes": {name: module.training for name, module in network.named_modules()},
        "hooks": {name: len(module._forward_hooks) for name, module in network.named_modules()},
        "random": torch.get_rng_state(),
    }


def same(before: Any, after: Any) -> bool:
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[name], after[name]) for name in before)
    return bool(torch.equal(before, after)) if isinstance(before, Tensor) else before == after


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_network_is_left_as_it_was(training: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    network = small().to(dtype).train(training)
    network[1].eval()  # a layer in another mode than the rest
    network[0].weight.requires_grad_(False)
    network[6].weight.grad = torch.ones_like(network[6].weight)
    network[3].register_forward_hook(lambda *_: None)
    before = state_of(network)
    made = exported(network, tmp_path)
    assert same(before, state_of(network))
    assert made.inspection.batchnorm.present == 1
    assert made.max_abs_diff is not None
    assert made.max_abs_diff < 1e-5


def test_it_does_not_matter_what_the_caller_has_set(tmp_path: Path) -> None:
    plain = exported(small(), tmp_path).file
    network = small()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
            made = exported(network, tmp_path)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert made.file == plain


def test_wrappers_are_taken_off(tmp_path: Path) -> None:
    plain = exported(small(), tmp_path).file
    assert exported(nn.DataParallel(small()), tmp_path).file == plain
    compiled = small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler uses what is going out of use
        assert exported(cast(nn.Module, torch.compile(nn.DataParallel(small()))), tmp_path).file == plain
        compiled.compile()
    assert exported(compiled, tmp_path).file == plain


class Normed(nn.Module):
    """Keeps a tensor that hangs on others as a plain attribute, and one from the last images."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # this way of weight normalisation is going out of use
            self.conv = weight_norm(nn.Conv2d(3, 5, 3))
        self.seen: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        if self.training:
            self.seen = features
        return features.mean((2, 3))  # type: ignore[no-any-return]  # of a module


def test_tensors_beside_the_parameters_are_copied_too(tmp_path: Path) -> None:
    network = Normed()
    network(torch.zeros(1, *SHAPE))
    assert network.seen is not None
    assert not network.seen.is_leaf
    assert exported(network, tmp_path).inspection.num_classes == 5


class Returning(nn.Module):
    """Returns what a function makes of logits and features."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.body, self.form = small(), form

    def forward(self, images: Tensor) -> Any:
        logits = self.body(images)
        return self.form(logits, images.mean((2, 3)))


Pair = namedtuple("Pair", ["classes", "features"])


class Answer:
    """An object with tensors as attributes."""

    def __init__(self, **tensors: Tensor) -> None:
        self.__dict__ |= tensors


@pytest.mark.parametrize(
    ("form", "logits"),
    [
        (lambda logits, features: {"logits": logits, "features": features}, None),
        (lambda logits, features: Answer(logits=logits, features=features), None),
        (lambda logits, features: (logits,), None),
        (lambda logits, features: {"out": logits, "loss": None}, None),
        (lambda logits, features: (features, logits), 1),
        (lambda logits, features: [features, logits], "1"),
        (lambda logits, features: {"a": features, "b": logits}, "b"),
        (Pair, "classes"),
        (lambda logits, features: logits, 0),
    ],
)
def test_the_logits_are_found_in_what_a_network_returns(form: Any, logits: str | int | None, tmp_path: Path) -> None:
    made = exported(Returning(form), tmp_path, logits=logits)
    assert (made.inspection.num_classes, made.inspection.batchnorm.present) == (5, 1)


@pytest.mark.parametrize(
    ("form", "logits", "words"),
    [
        (lambda logits, features: (logits, features), None, r"several outputs: 0 \[2, 5\], 1 \[2, 3\]"),
        (lambda logits, features: {"a": logits, "b": features}, "c", r"none is c: a \[2, 5\], b \[2, 3\]"),
        (lambda logits, features: "five", None, "returns a str, not logits"),
    ],
)
def test_of_several_outputs_none_is_guessed(form: Any, logits: str | None, words: str, tmp_path: Path) -> None:
    with pytest.raises(TeacherInvalid, match=words):
        exported(Returning(form), tmp_path, logits=logits)
    assert list(tmp_path.iterdir()) == []


class Normalising(nn.Module):
    """Takes pixels from 0 to 255, and returns probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small()
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images / 255 - self.mean).softmax(1)  # type: ignore[no-any-return]  # of a module


def test_a_network_that_prepares_its_images_and_ends_in_a_softmax_is_exported(tmp_path: Path) -> None:
    made = exported(Normalising(), tmp_path, mean=[0.0] * 3, std=[1.0] * 3, pixel_range=(0, 255))
    assert "softmax-cut" in made.inspection.normalisations
    assert made.teacher.input is not None
    assert made.teacher.input.pixel_bounds(3) == ([0.0] * 3, [255.0] * 3)


class Pooled(nn.Module):
    """The legacy exporter writes a file of this that no service takes; the newer one writes one that is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        normed = F.local_response_norm(self.norm(self.conv(images)), 2)
        return self.last(normed.mean((2, 3)))  # type: ignore[no-any-return]  # of a module


def test_the_second_exporter_is_tried_where_the_file_of_the_first_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = exported(Pooled(), tmp_path)
    assert made.told == [
        "exported by the newer exporter: the legacy one failed (OperatorUnsupported: 1 node of the ONNX "
        "graph cannot be taken: /network/If: If — has a sub-graph)"
    ]
    assert made.inspection.batchnorm.present == 1
    assert capfd.readouterr() == ("", "")


class Branching(nn.Module):
    """No exporter can follow this: the way depends on values, and the trace of it disagrees with other images."""

    def forward(self, images: Tensor) -> Tensor:
        shifted = images.mean((2, 3))
        return shifted if float(images[0].sum()) > 0 else -shifted


def test_what_no_exporter_can_write_is_refused_with_what_each_says(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((TeacherInvalid, ParityError)):
        exported(Branching(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_weights_that_are_not_there_are_told(tmp_path: Path) -> None:
    with torch.device("meta"):
        absent = small()
    for network in (absent, nn.Sequential(nn.Flatten(), nn.LazyLinear(5))):
        with pytest.raises(TeacherInvalid, match="weights without data"):
            exported(network, tmp_path)


def test_an_error_of_the_network_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(TeacherInvalid, match=r"the network fails on images of shape.*shapes cannot be multiplied"):
        exported(nn.Sequential(nn.Flatten(), nn.Linear(7, 5)), tmp_path)
