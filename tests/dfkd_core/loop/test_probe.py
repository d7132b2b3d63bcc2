"""Reservoir, probe and ratchet: what is held out, and which student is published."""

import pytest
import torch
from torch import Tensor, nn

from dfkd_core.images.batch import Batch
from dfkd_core.images.reservoir import ClassReservoir, PixelCodec
from dfkd_core.images.student_answers import answers
from dfkd_core.loop.best_student import BestStudent, beats
from dfkd_core.loop.distill import distill
from dfkd_core.loop.probe import Probe, agrees, overlap
from dfkd_core.progress import Phase, Update
from dfkd_core.pulse import Pulse
from dfkd_core.spec.config import DistillConfig
from tests.dfkd_core.tiny import tiny_config, tiny_network, tiny_teacher

LOW, HIGH = torch.tensor([-1.0]).view(1, 1, 1, 1), torch.tensor([2.0]).view(1, 1, 1, 1)


def batch_of(values: Tensor, classes: Tensor, *, num_classes: int = 2) -> Batch:
    images = values.float().view(-1, 1, 1, 1)
    return Batch(images=images, teacher_logits=nn.functional.one_hot(classes, num_classes).float())


def reservoir(capacity: int, *, num_classes: int = 2, dtype: torch.dtype = torch.float16) -> ClassReservoir:
    return ClassReservoir(capacity, num_classes=num_classes, shape=(1, 1, 1), codec=PixelCodec(LOW, HIGH, dtype))


def test_every_past_image_is_kept_with_equal_probability() -> None:
    offered, quota, runs = 60, 10, 600
    draws = torch.Generator().manual_seed(0)
    kept = torch.zeros(offered)
    for _ in range(runs):
        bank = reservoir(quota, num_classes=1)
        for start in range(0, offered, 7):  # batches that do not divide the stream
            numbers = torch.arange(start, min(start + 7, offered))
            bank.add(batch_of(numbers, torch.zeros_like(numbers), num_classes=1), generator=draws)
        kept[bank.all().images.flatten().long()] += 1
    expected = runs * quota / offered
    chi_square = ((kept - expected) ** 2 / (expected * (1 - quota / offered))).sum()
    assert kept.sum() == runs * quota
    assert chi_square < 100  # 59 degrees of freedom: 99.9 % lie below


def test_class_quotas_hold_whatever_the_stream() -> None:
    bank = reservoir(40, num_classes=4)
    draws = torch.Generator().manual_seed(0)
    classes = torch.tensor([0] * 500 + [1] * 50 + [2] * 3)
    bank.add(batch_of(classes, classes, num_classes=4), generator=draws)
    assert bank.all().teacher_logits.argmax(dim=1).bincount(minlength=4).tolist() == [10, 10, 3, 0]
    assert len(bank) == 23


def test_more_classes_than_places_share_them() -> None:
    bank = reservoir(8, num_classes=20)
    classes = torch.arange(20).repeat(30)
    bank.add(batch_of(classes, classes, num_classes=20), generator=torch.Generator().manual_seed(0))
    kept = bank.all()
    assert bank.num_bytes == 8 * (2 + 2 * 20)
    assert torch.equal(kept.teacher_logits.argmax(dim=1) % 8, torch.arange(8))
    assert torch.equal(kept.images.flatten().long(), kept.teacher_logits.argmax(dim=1))


def test_eight_bits_are_within_half_a_level_and_clip() -> None:
    codec = PixelCodec(LOW, HIGH)
    images = torch.linspace(-1, 2, 1001).view(-1, 1, 1, 1)
    assert (codec.decode(codec.encode(images)) - images).abs().max() <= 3 / 255 / 2 + 1e-6
    outside = codec.decode(codec.encode(torch.tensor([-5.0, 5.0]).view(2, 1, 1, 1)))
    assert outside.flatten().tolist() == pytest.approx([-1, 2])


def test_samples_carry_the_logits_of_their_images() -> None:
    bank = reservoir(20)
    values = torch.tensor([-1.0, 2.0]).repeat(10)
    bank.add(batch_of(values, (values > 0).long()), generator=torch.Generator().manual_seed(0))
    sample = bank.sample(50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(sample.teacher_logits.argmax(dim=1), (sample.images.flatten() > 0).long())


def test_bytes_are_those_of_images_and_logits() -> None:
    bank = ClassReservoir(
        10_000, num_classes=10, shape=(3, 32, 32), codec=PixelCodec(LOW.expand(1, 3, 1, 1), HIGH.expand(1, 3, 1, 1))
    )
    assert bank.num_bytes == 10_000 * (3 * 32 * 32 + 2 * 10)


def test_probe_keeps_the_newest_and_a_sample_of_all_history() -> None:
    probe = Probe(40, num_classes=1, shape=(1, 1, 1), codec=PixelCodec(LOW, HIGH, torch.float16))
    draws = torch.Generator().manual_seed(0)
    for number in range(200):
        one = torch.tensor([number])
        probe.observe(batch_of(one, torch.zeros(1, dtype=torch.int64), num_classes=1), generator=draws)
    numbers = sorted(probe.batch().images.flatten().int().tolist())
    assert len(set(numbers)) == 40
    assert numbers[-10:] == list(range(190, 200))
    assert min(numbers) < 100


class Says(nn.Module):
    """Gives class 1 to images above its threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, images: Tensor) -> Tensor:
        value = images.flatten(1).mean(dim=1) - self.threshold
        return torch.stack([-value, value], dim=1)


def probe_batch(count: int = 100) -> Batch:
    values = torch.linspace(0, 1, count)
    return batch_of(values, (values > 0.5).long())


def share(student: nn.Module, batch: Batch) -> float:
    return agrees(answers(student, batch), batch).double().mean().item()


def test_agreement_is_told_image_by_image_and_the_mode_put_back() -> None:
    student = Says(0.75).train()
    assert share(student, probe_batch()) == pytest.approx(0.75)
    assert student.training


def test_overlap_is_what_two_distributions_share() -> None:
    batch = Batch(images=torch.zeros(3, 1, 1, 1), teacher_logits=torch.tensor([[0.0, 0], [0, 0], [99, 0]]))
    student_logits = torch.tensor([[0.0, 0], [99, 0], [0, 99]])
    assert overlap(student_logits, batch).tolist() == pytest.approx([1, 0.5, 0])


def test_the_first_student_is_published_whatever_it_is() -> None:
    ratchet = BestStudent(Says(0.5), margin=1.0)
    assert ratchet.maybe_replace(Says(-9.0), probe_batch(), step=7).replaced
    assert ratchet.published_step == 7


def test_a_worse_or_equal_student_is_not_published() -> None:
    ratchet = BestStudent(Says(0.6), margin=1.0)
    ratchet.maybe_replace(Says(0.6), probe_batch(), step=1)
    for threshold in (0.6, 0.7, 0.4):
        assert not ratchet.maybe_replace(Says(threshold), probe_batch(), step=2).replaced
    assert ratchet.published_step == 1


def test_less_caution_asks_for_less_proof() -> None:
    ratchet = BestStudent(Says(0.0), margin=1e6)
    ratchet.maybe_replace(Says(0.9), probe_batch(), step=1)
    assert not ratchet.maybe_replace(Says(0.6), probe_batch(), step=2).replaced
    assert ratchet.maybe_replace(Says(0.6), probe_batch(), step=3, margin_scale=0.0).replaced


def test_one_image_is_not_enough_and_many_are() -> None:
    old = torch.zeros(100, dtype=torch.bool)
    one, many = old.clone(), old.clone()
    one[:1], many[:9] = True, True
    assert not beats(one, old, margin=2.0)
    assert beats(many, old, margin=2.0)


def test_the_published_score_never_falls_on_the_same_probe() -> None:
    draws = torch.Generator().manual_seed(0)
    probe = probe_batch(997)
    ratchet = BestStudent(Says(0.95), margin=0.5)
    ratchet.maybe_replace(Says(0.95), probe, step=0)
    scores = []
    for step in range(1, 60):
        ratchet.maybe_replace(Says(float(torch.rand((), generator=draws))), probe, step=step)
        scores.append(share(ratchet.published, probe))
    assert scores == sorted(scores)
    assert scores[-1] > 0.9


def test_the_published_student_is_a_copy() -> None:
    student = Says(0.5)
    ratchet = BestStudent(student, margin=1.0)
    ratchet.maybe_replace(student, probe_batch(), step=1)
    student.threshold.data.fill_(9.0)
    assert share(ratchet.published, probe_batch()) == 1


@pytest.mark.parametrize("size", [1, 7, 20, 64])
def test_a_probe_in_parts_is_the_whole_probe(size: int) -> None:
    probe = Probe(20, num_classes=2, shape=(1, 1, 1), codec=PixelCodec(LOW, HIGH, torch.float16))
    draws = torch.Generator().manual_seed(0)
    for start in range(0, 60, 3):
        values = torch.arange(start, start + 3).float()
        probe.observe(batch_of(values, values.long() % 2), generator=draws)
    parts, whole = list(probe.split(size)), probe.batch()
    assert torch.equal(torch.cat(parts), whole.images)
    assert max(len(part) for part in parts) <= size
    assert torch.equal(probe.teacher_logits, whole.teacher_logits)


def probe_of(size: int, *, classes: int) -> Probe:
    return Probe(size, num_classes=classes, shape=(1, 1, 1), codec=PixelCodec(LOW, HIGH, torch.float16))


@pytest.mark.parametrize(("shares", "lot"), [((1, 1, 1, 1), None), ((6, 2, 1, 1), None), ((30, 4, 4, 2), 16)])
def test_the_images_that_fill_a_probe_are_foreseen_from_the_shares_of_the_classes(
    shares: tuple[int, ...], lot: int | None
) -> None:
    """The forecast is compared with filling the probe: images of a rare class are waited for."""
    draws = torch.Generator().manual_seed(0)
    odds = torch.tensor(shares, dtype=torch.float64)
    seen = odds.multinomial(2000, replacement=True, generator=draws)
    taken = []
    for _ in range(30):
        probe, made = probe_of(80, classes=4), 0
        foreseen = probe.images_to_reach(80, seen, lot=lot)
        while (missing := 80 - len(probe)) > 0:
            before, offered = len(probe), min(missing, lot or missing)
            classes = odds.multinomial(offered, replacement=True, generator=draws)
            probe.observe(batch_of(classes, classes, num_classes=4), generator=draws)
            made += lot or offered
            if len(probe) == before:
                break
        taken.append(made)
    assert foreseen == pytest.approx(sum(taken) / len(taken), rel=0.3)


def test_classes_that_do_not_occur_are_not_waited_for() -> None:
    assert probe_of(80, classes=4).images_to_reach(80, torch.zeros(100, dtype=torch.int64), lot=None) < 400


def test_a_full_probe_needs_no_images() -> None:
    probe, classes = probe_of(80, classes=4), torch.arange(4).repeat(100)
    probe.observe(batch_of(classes, classes, num_classes=4), generator=torch.Generator().manual_seed(0))
    assert len(probe) == probe.capacity == 80
    assert probe.images_to_reach(80, classes, lot=None) == 0


@pytest.mark.parametrize("method", ["pre_dfkd", "deepinversion"])
def test_a_run_says_how_many_images_its_audit_set_will_need(method: str) -> None:
    pulse = Pulse()
    told: list[float] = []

    def on_step(_update: Update) -> bool:
        if not pulse.work.get(Phase.AUDIT) and Phase.AUDIT in pulse.expected:
            told.append(pulse.expected[Phase.AUDIT])
        return False

    own = {"steps": 3, "batch_size": 12, "warmup_rounds": 1} if method == "deepinversion" else {}
    document = tiny_config(steadiness={"probe_size": 64, "audit_size": 200}).model_dump(mode="json")
    options = own or document["method_options"]
    config = DistillConfig.model_validate({**document, "method": method, "method_options": options})
    distill(tiny_teacher(batchnorm=True), tiny_network(batchnorm=True), config, on_step=on_step, pulse=pulse)
    made = pulse.work[Phase.AUDIT]
    assert made > 0
    assert told[-1] == pytest.approx(made, rel=0.6)  # two thirds more or less: few images tell the classes' shares
    assert pulse.expected[Phase.AUDIT] == pytest.approx(made, rel=0.3)
    assert set(pulse.seconds) == set(pulse.work)


def test_images_of_a_probe_are_taken_by_their_numbers() -> None:
    probe = Probe(20, num_classes=2, shape=(1, 1, 1), codec=PixelCodec(LOW, HIGH, torch.float16))
    values = torch.arange(20).float()
    probe.observe(batch_of(values, values.long() % 2), generator=torch.Generator().manual_seed(0))
    numbers = torch.tensor([18, 0, 7, 18, 13])
    assert torch.equal(probe.take(numbers), probe.batch().images[numbers])
