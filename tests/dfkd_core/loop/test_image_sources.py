"""The mixture of images that the student learns from, and that its BatchNorms are re-estimated on."""

import pytest
import torch
from torch import nn

from dfkd_core.images.procedural import ProceduralBank
from dfkd_core.loop.round import train_round
from dfkd_core.loop.state import Run, build_run
from dfkd_core.spec.config import DistillConfig
from tests.dfkd_core.tiny import tiny_config, tiny_network, tiny_teacher


@pytest.mark.parametrize(("share", "refined"), [(0.0, 0), (0.25, 4), (1.0, 16)])
def test_the_stated_share_of_the_procedural_images_is_refined(share: float, refined: int) -> None:
    config = tiny_config(procedural={"share": 1.0, "refinement": {"share": share, "images_per_round": 16}})
    state = build_run(tiny_teacher(), tiny_network(), config)
    while state.counters.warmup_rounds < config.method_options.warmup_rounds:
        train_round(state)
    _paint(state.images.procedural, 0)  # black
    _paint(state.images.refined, 255)  # white
    state.images.fresh.restore([])
    state.images.fresh.add(state.images.procedural.draw(4, generator=torch.Generator()))
    batch = state.images.student_batch(config.training.batch_size, replay_share=0.0, generator=torch.Generator())
    images = batch.images.flatten(1)
    assert int((images == 2).all(dim=1).sum()) == refined
    assert int((images == -1).all(dim=1).sum()) == 16 - refined


@pytest.mark.parametrize("shade", [0, 255])
def test_batchnorms_are_re_estimated_on_what_the_student_learns_from(shade: int) -> None:
    """The generator's images stay as they are; those that make up the batches are all black, or all white."""
    still = {"shift": 0.0, "rotation": 0.0, "noise": 0.0}
    config = tiny_config(
        procedural={"share": 1.0, "refinement": {"share": 0.0}}, training={"augmentation": still, "valid_range": False}
    )
    state: Run = build_run(tiny_teacher(batchnorm=True), tiny_network(batchnorm=True), config)
    for _ in range(config.method_options.warmup_rounds + 1):
        train_round(state)
    _paint(state.images.procedural, shade)
    state.judge.evaluate(state.student, state.images, step=state.counters.steps, replay_share=0.0, margin_scale=1.0)
    student = state.student.average
    norm, convolution = student.get_submodule("1"), student.get_submodule("0")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    plain = torch.full((1, 1, 8, 8), -1.0 if shade == 0 else 2.0)  # the tiny teacher's range
    torch.testing.assert_close(norm.running_mean, convolution(plain).mean(dim=(0, 2, 3)).detach(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("method", "featured"), [("pre_dfkd", 8), ("deepinversion", 16)])
def test_features_are_compared_on_all_images_that_no_generator_made(method: str, featured: int) -> None:
    config = DistillConfig.model_validate({"method": method, "procedural": {"share": 0.5}})
    assert build_run(tiny_teacher(), tiny_network(), config).images.num_featured(16) == featured


def _paint(bank: ProceduralBank, shade: int) -> None:
    rows = bank._images
    rows[torch.arange(len(rows))] = torch.full(rows.shape, shade, dtype=torch.uint8)
