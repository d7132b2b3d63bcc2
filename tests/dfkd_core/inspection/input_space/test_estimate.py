"""The input space of a teacher is found from its BatchNorm statistics, from its graph, or said to be unknown."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dfkd_core.architectures import describe
from dfkd_core.images.procedural import procedural_images
from dfkd_core.inspection.input_space import answers
from dfkd_core.inspection.input_space.conventions import COLOUR, EVERYWHERE, GREY, are_alike, conventions, usual
from dfkd_core.inspection.input_space.estimate import estimate_input
from dfkd_core.inspection.input_space.forward import NotComputable, compute, is_computable
from dfkd_core.inspection.input_space.pictures import pictures
from dfkd_core.interface import TeacherInterface
from dfkd_core.narrowing.catalogue import plan_of
from dfkd_core.onnx_import.ir.plan import Plan, Step
from dfkd_core.options.kinds import KindName
from dfkd_core.spec.teacher import InputSpec
from dfkd_core.students.build import build_network

BY_NAME = {one.name: one for one in (*EVERYWHERE, *GREY, *COLOUR)}


def teacher_of(
    convention: str, *, channels: int, architecture: str = "resnet8", seed: int = 1, kind: KindName = "shapes"
) -> Plan:
    """Return the plan of a network with random weights whose BatchNorms saw drawn pictures under a convention."""
    shape = (channels, 12, 12)
    description = describe(architecture, input_shape=shape, num_classes=10)
    draws = torch.Generator().manual_seed(seed)
    network = build_network(description, generator=draws).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # type: ignore[assignment]  # the average over all batches
    low, high = (torch.tensor(bound).view(1, -1, 1, 1) for bound in BY_NAME[convention].bounds(channels))
    with torch.no_grad():
        for _ in range(2):
            network(torch.lerp(low, high, procedural_images(shape, 32, kinds=(kind,), generator=draws)))
    return plan_of(description, {name: tensor.numpy() for name, tensor in network.state_dict().items()})


@pytest.mark.parametrize("convention", ["zero-one", "minus-one-one", "bytes", "mnist", "fashion-mnist"])
def test_the_convention_of_a_grey_teacher_is_named(convention: str) -> None:
    found = estimate_input(teacher_of(convention, channels=1))
    assert (found.convention, found.basis) == (convention, "batchnorm")
    assert found.certainty != "unknown"
    assert found.distances[convention] == found.distance == min(found.distances.values())
    assert found.next_distance is not None
    assert found.next_distance > found.distances[convention]


@pytest.mark.parametrize("convention", ["zero-one", "minus-one-one", "bytes", "caffe", "imagenet", "cifar100"])
def test_the_convention_of_a_colour_teacher_is_named_or_one_that_is_like_it(convention: str) -> None:
    found = estimate_input(teacher_of(convention, channels=3))
    assert found.certainty != "unknown"
    assert are_alike(BY_NAME[found.convention], BY_NAME[convention], 3)
    assert found.pictures in ("shapes", "scenes")


@pytest.mark.parametrize(("kind", "expected"), [("figures", "figures"), ("shapes", "strokes")])
def test_a_teacher_of_signs_is_told_from_one_of_grey_shapes(kind: KindName, expected: str) -> None:
    found = estimate_input(teacher_of("zero-one", channels=1, kind=kind))
    assert (found.convention, found.pictures) == ("zero-one", expected)


def test_the_costly_first_layer_of_a_resnet_of_224_pixels_is_looked_at() -> None:
    shape = (3, 224, 224)
    weight = np.random.default_rng(0).standard_normal((64, 3, 7, 7)).astype("f4") * 0.05
    window = {"kernel": (7, 7), "strides": (2, 2), "dilations": (1, 1), "pads": ((3, 3), (3, 3)), "group": 1}
    convolution = Step("Conv", "", ("images", "weight"), ("maps",), window)
    norm = Step("BatchNormalization", "", ("maps", "one", "zero", "mean", "variance"), ("y",), {"epsilon": 1e-5})
    maps = (1, 64, 112, 112)
    plan = replace(
        plan_of(describe("resnet8", input_shape=(3, 32, 32), num_classes=10)),
        input_shape=shape,
        steps=(convolution, norm),
        constants={"weight": weight, "one": np.ones(64, "f4"), "zero": np.zeros(64, "f4")},
        shapes={"images": (1, *shape), "weight": weight.shape, "maps": maps, "y": maps},
    )
    low, high = (np.array(bound, "f4").reshape(1, 3, 1, 1) for bound in BY_NAME["imagenet"].bounds(3))
    seen = compute(plan, [convolution], low + (high - low) * pictures(shape, 12)["scenes"][8:], ["maps"])["maps"]
    constants = {**plan.constants, "mean": seen.mean((0, 2, 3)), "variance": seen.var((0, 2, 3))}
    found = estimate_input(replace(plan, constants=constants))
    assert (found.basis, found.pictures) == ("batchnorm", "scenes")
    assert are_alike(BY_NAME[found.convention], BY_NAME["imagenet"], 3)


def test_what_was_told_is_compared_too() -> None:
    told = InputSpec(mean=[0.1307], std=[0.3081])
    found = estimate_input(teacher_of("bytes", channels=1), told)
    assert found.convention == "bytes"
    assert found.distance is not None
    assert found.told is not None
    assert found.told.distance > 2 * found.distance
    right = estimate_input(teacher_of("mnist", channels=1), told)
    assert right.told is not None
    assert right.told.distance == right.distance


def test_the_same_plan_gives_the_same_estimate() -> None:
    assert estimate_input(teacher_of("mnist", channels=1)) == estimate_input(teacher_of("mnist", channels=1))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_nothing_is_made_up_for_a_network_that_has_not_learnt(channels: int, seed: int | None) -> None:
    description = describe("lenet5", input_shape=(channels, 32, 32), num_classes=10)
    weights = None  # zeros
    if seed is not None:
        network = build_network(description, generator=torch.Generator().manual_seed(seed))
        weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    found = estimate_input(plan_of(description, weights))
    assert (found.certainty, found.basis) == ("unknown", "default")
    assert found.convention == ("imagenet" if channels == 3 else "wide")
    assert found.convention == usual(channels).name
    assert found.distance is None


def without_norms(convention: str, *, seed: int = 0) -> Plan:
    """Return the plan of a LeNet-5 that has learnt to tell ten drawn figures apart under a convention."""
    shape = (1, 32, 32)
    description = describe("lenet5", input_shape=shape, num_classes=10)
    draws = torch.Generator().manual_seed(seed)
    network = build_network(description, generator=draws).train()
    figures = procedural_images(shape, 10, kinds=("figures",), generator=draws)
    low, high = (torch.tensor(bound).view(1, -1, 1, 1) for bound in BY_NAME[convention].bounds(1))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(60):
        labels = torch.randint(10, (64,), generator=draws)
        shifts = torch.randint(-3, 4, (64, 2), generator=draws).tolist()
        moved = [figures[label].roll(shift, (1, 2)) for label, shift in zip(labels, shifts, strict=True)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(torch.lerp(low, high, torch.stack(moved))), labels).backward()
        optimizer.step()
    return plan_of(description, {name: tensor.numpy() for name, tensor in network.state_dict().items()})


@pytest.mark.parametrize("convention", ["zero-one", "minus-one-one", "bytes", "mnist"])
def test_the_answers_of_a_network_without_batchnorm_name_its_convention(convention: str) -> None:
    found = estimate_input(without_norms(convention))
    assert (found.convention, found.basis) == (convention, "answers")
    assert found.certainty in ("likely", "unknown")
    assert found.next_convention not in (None, convention)
    assert found.distance is None


def test_the_answers_of_a_network_that_costs_too_much_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = without_norms("zero-one")
    monkeypatch.setattr(answers, "COST", 1e6)
    assert estimate_input(plan).basis == "default"


def with_steps(plan: Plan, *steps: tuple[str, list[float]]) -> Plan:
    """Return the plan with constant arithmetic before its first layer."""
    value, added, constants = "pixels", [], dict(plan.constants)
    for number, (op, values) in enumerate(steps):
        name, made = f"constant{number}", plan.input_name if number == len(steps) - 1 else f"made{number}"
        constants[name] = np.array(values, "f4").reshape(1, -1, 1, 1)
        added.append(Step(op, op, (value, name), (made,), {}))
        value = made
    shape = plan.shapes[plan.input_name]
    shapes = {**plan.shapes, "pixels": shape, **{step.outputs[0]: shape for step in added}}
    return replace(plan, input_name="pixels", steps=(*added, *plan.steps), constants=constants, shapes=shapes)


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([("Sub", [0.485, 0.456, 0.406]), ("Div", [0.229, 0.224, 0.225])], "zero-one"),
        ([("Mul", [2.0]), ("Sub", [1.0])], "zero-one"),
        ([("Mul", [255.0]), ("Sub", [103.9, 116.8, 123.7])], "zero-one"),
        ([("Sub", [123.7, 116.3, 103.5]), ("Div", [58.4, 57.1, 57.4])], "bytes"),
        ([("Mul", [1 / 255])], "bytes"),
        ([("Div", [127.5]), ("Sub", [1.0])], "bytes"),
    ],
)
def test_normalisation_inside_the_graph_is_read_from_it(steps: list[tuple[str, list[float]]], found: str) -> None:
    description = describe("lenet5", input_shape=(3, 32, 32), num_classes=10)
    estimate = estimate_input(with_steps(plan_of(description), *steps))
    assert (estimate.convention, estimate.certainty, estimate.basis) == (found, "sure", "graph")


def test_pixels_of_a_file_that_takes_whole_numbers_are_bytes() -> None:
    plan = plan_of(describe("lenet5", input_shape=(1, 32, 32), num_classes=10))
    whole = replace(plan, interface=TeacherInterface(input_type="uint8", output_shape=[10]))
    estimate = estimate_input(whole)
    assert (estimate.convention, estimate.range, estimate.basis) == ("bytes", [0.0, 255.0], "element-type")


@pytest.mark.parametrize("architecture", ["resnet8", "mobilenetv2", "vgg11", "lenet5"])
def test_numpy_computes_what_pytorch_does(architecture: str) -> None:
    description = describe(architecture, input_shape=(3, 32, 32), num_classes=10)
    draws = torch.Generator().manual_seed(0)
    network = build_network(description, generator=draws).eval()
    images = torch.rand((3, 3, 32, 32), generator=draws)
    plan = plan_of(description, {name: tensor.numpy() for name, tensor in network.state_dict().items()})
    assert all(is_computable(step) for step in plan.steps)
    found = compute(plan, plan.steps, images.numpy(), [plan.output_name])[plan.output_name]
    with torch.no_grad():
        np.testing.assert_allclose(found, network(images).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("op", "attributes", "module"),
    [
        ("LayerNormalization", {"axis": 1}, nn.LayerNorm((6, 5, 4))),
        ("GroupNormalization", {"groups": 3}, nn.GroupNorm(3, 6)),
        ("InstanceNormalization", {}, nn.InstanceNorm2d(6, affine=True)),
    ],
)
def test_numpy_normalises_as_pytorch_does(op: str, attributes: dict[str, int], module: nn.Module) -> None:
    draws = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=draws)
    images = torch.randn((2, 6, 5, 4), generator=draws)
    weights = {name: tensor.detach().numpy() for name, tensor in module.named_parameters()}
    plan = plan_of(describe("lenet5", input_shape=(1, 32, 32), num_classes=10))
    plan = replace(plan, constants={**plan.constants, **weights})
    step = Step(op, "", (plan.input_name, "weight", "bias"), ("y",), {"epsilon": 1e-5, **attributes})
    found = compute(plan, [step], images.numpy(), ["y"])["y"]
    np.testing.assert_allclose(found, module(images).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_an_operator_that_is_not_known_is_said_to_be_so() -> None:
    plan = plan_of(describe("lenet5", input_shape=(1, 32, 32), num_classes=10))
    unknown = Step("GridSample", "", (plan.input_name,), ("y",), {})
    with pytest.raises(NotComputable):
        compute(plan, [unknown], np.zeros((1, 1, 32, 32), "f4"), ["y"])


def test_conventions_that_are_alike_give_pixels_nearly_the_same_values() -> None:
    assert are_alike(BY_NAME["imagenet"], BY_NAME["cifar10"], 3)
    assert not are_alike(BY_NAME["imagenet"], BY_NAME["minus-one-one"], 3)
    assert not are_alike(BY_NAME["mnist"], BY_NAME["fashion-mnist"], 1)
    assert {one.name for one in conventions(4)} == {"zero-one", "minus-one-one", "bytes"}
