"""The sizes of micro-batches and chunks: what is kept of one image decides how many are computed at a time."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.architectures import describe
from dfkd_core.networks.batchnorm import renormalise
from dfkd_core.networks.hooks import hooked
from dfkd_core.options.passes import Network
from dfkd_core.planning.forecast import JobFacts
from dfkd_core.planning.memory import KEPT, memory_need
from dfkd_core.planning.micro_batches import KEPT_BY_TEMPORARY, with_micro_batches
from dfkd_core.planning.sizes import sizes_of
from dfkd_core.planning.work import RunFacts
from dfkd_core.spec.compute import Compute
from dfkd_core.spec.config import DistillConfig
from dfkd_core.students.build import build_network
from tests.builders import worker_speed
from tests.dfkd_core.planning.test_memory import FACTS

RUN = FACTS.run
TEACHER, STUDENT = RUN.teacher.activation_bytes, RUN.student.activation_bytes


def config_of(**distillation: Any) -> DistillConfig:
    return DistillConfig.model_validate({"method": "deepinversion", **distillation})


def sizes(config: DistillConfig, *, images: float, kept: int, run: RunFacts = RUN) -> Compute:
    """The sizes with memory for some images of which `kept` bytes are kept each."""
    return with_micro_batches(config, run, activation_bytes=round(images * kept)).compute


def own_bytes(config: DistillConfig, network: Network) -> int:
    return sizes_of(config, RUN.shape)[network].activation_bytes


def test_a_chunk_holds_what_the_teacher_keeps_and_what_the_student_keeps_for_its_feedback() -> None:
    assert sizes(config_of(), images=20.5, kept=TEACHER).chunk == 20
    asked = config_of(method_options={"adv_weight": 1.0})
    assert sizes(asked, images=20.5, kept=TEACHER + STUDENT).chunk == 20


def test_a_chunk_of_figures_holds_what_their_pictures_keep() -> None:
    config = config_of(method_options={"figure_share": 0.5})
    assert sizes(config, images=20.5, kept=TEACHER + 4 * config.method_options.kept_values(RUN.shape)).chunk == 20


def test_a_chunk_holds_what_inserted_batchnorms_keep_of_the_teacher() -> None:
    config = config_of(method_options={"pseudo_statistics": ["shapes"]})
    assert sizes(config, images=20.5, kept=1.25 * TEACHER).chunk == 20


@pytest.mark.parametrize(("transforms", "count"), [("rotations", 4), ("flips", 2), ("none", 1)])
def test_the_student_of_csd_sees_every_image_in_all_transforms(transforms: str, count: int) -> None:
    config = config_of(method="csd", method_options={"transforms": transforms})
    kept = TEACHER + count * STUDENT + own_bytes(config, Network.GENERATOR)
    assert sizes(config, images=20.5, kept=kept).chunk == 20


def test_a_generator_counts_with_the_teacher_that_sees_its_images() -> None:
    config = config_of(method="dafl", memory="none")
    assert sizes(config, images=20.5, kept=TEACHER + own_bytes(config, Network.GENERATOR)).chunk == 20


def test_so_do_the_networks_of_a_memory() -> None:
    config = config_of(method="dafl", memory="vae", memory_options={"width": 64})
    kept = own_bytes(config, Network.ENCODER) + own_bytes(config, Network.DECODER)
    assert kept > own_bytes(config, Network.GENERATOR)
    assert sizes(config, images=20.5, kept=TEACHER + kept).chunk == 20


def test_temporary_batchnorms_keep_what_they_read() -> None:
    folded = replace(RUN, temporary_batchnorm=True)
    kept = round((1 + KEPT_BY_TEMPORARY) * STUDENT)
    assert sizes(config_of(), images=20.5, kept=kept, run=folded).micro_batch == 20
    assert sizes(config_of(), images=20.5, kept=STUDENT).micro_batch == 20


@pytest.mark.parametrize("architecture", ["vgg11", "resnet20", "wrn_16_1"])
def test_a_student_with_temporary_batchnorms_keeps_about_that(architecture: str) -> None:
    """The student's own BatchNorms are removed first, as if an exporter had folded them."""
    description = describe(architecture, input_shape=(3, 32, 32), num_classes=10)
    student = build_network(description, generator=torch.Generator().manual_seed(0)).train()
    for module in list(student.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    counted, plain = output_bytes(student), kept_bytes(student)
    renormalise(student)
    assert plain < kept_bytes(student) <= KEPT * (1 + KEPT_BY_TEMPORARY) * counted


def output_bytes(network: nn.Module) -> int:
    """The bytes of all layers' outputs for two images, as they are counted in a file."""
    sizes: list[int] = []
    leaves = [each for each in network.modules() if not isinstance(each, nn.Identity) and not list(each.children())]
    with hooked(leaf.register_forward_hook(lambda _m, _i, output: sizes.append(output.nbytes)) for leaf in leaves):
        network(torch.rand((2, 3, 32, 32)))
    return sum(sizes)


def kept_bytes(network: nn.Module) -> int:
    """The bytes that autograd keeps of a forward of two images, without the weights."""
    weights, kept = {each.data_ptr() for each in network.parameters()}, dict[int, Tensor]()

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.rand((2, 3, 32, 32)))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_one_image_that_exceeds_the_memory_is_planned_with_what_it_takes() -> None:
    config = with_micro_batches(config_of(), RUN, activation_bytes=1000)
    assert (config.compute.chunk, config.compute.label_chunk, config.compute.micro_batch) == (1, 1, 2)
    assert memory_need(config, FACTS, worker_speed()).activations >= max(TEACHER, 2 * STUDENT) > 1000


def test_the_weights_of_generator_and_memory_are_planned_with_their_optimisers() -> None:
    """At 64 pixels the first layer alone, from noise to a map of 16 x 16, has most of them."""

    def weights(**options: Any) -> int:
        return memory_need(config_of(**options), FACTS, worker_speed()).weights

    plain = weights(method="deepinversion", memory="none")
    generator = sizes_of(config_of(method="dafl"), RUN.shape)[Network.GENERATOR].parameters
    assert weights(method="dafl", memory="none") - plain == 4 * 10 * generator
    memory = sizes_of(config_of(method="deepinversion", memory="vae"), RUN.shape)
    trained = memory[Network.ENCODER].parameters + memory[Network.DECODER].parameters
    assert weights(method="deepinversion", memory="vae") - plain == 4 * 4 * trained


@pytest.mark.parametrize("method", ["dafl", "pre_dfkd"])
def test_chunks_bound_a_generator_and_a_memory_whatever_their_batches(method: str) -> None:
    def activations(batch: int, **compute: int) -> int:
        config = config_of(
            method=method,
            memory="vae",
            method_options={"batch_size": batch},
            memory_options={"batch_size": batch},
            training={"batch_size": 16, "replays_per_round": batch},
            procedural={"share": 0.0},
            compute=compute,
        )
        return memory_need(config, JobFacts(RUN, FACTS.teacher, FACTS.student), worker_speed()).activations

    chunks = {"chunk": 16, "label_chunk": 16, "micro_batch": 16}
    assert activations(64, **chunks) == activations(1024, **chunks)
    assert activations(1024) > 10 * activations(1024, **chunks)
