"""Work: what a run has to compute, phase by phase, as numbers of images through each network.

The counts are exact for a run that neither collapses nor falls back nor ends early, with these exceptions, which depend
on the images: the audit set may need fewer or more new images, the VAE replays only once its reconstructions are good
enough, and with bf16 the held-out procedural images are labelled twice.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dfkd_core.options.kinds import mean_cost
from dfkd_core.options.passes import Direction, Network, Passes, Rehearsal, passes
from dfkd_core.planning.rounds import (
    AUDIT_PART,
    BATCHNORM_BATCH_SIZE,
    BATCHNORM_BATCHES,
    COSTLY_AUDIT,
    PROCEDURAL_HELD_OUT,
    Rounds,
    chunks,
    held_out_of,
)
from dfkd_core.planning.sizes import NetworkSize, sizes_of
from dfkd_core.progress import Phase
from dfkd_core.spec.config import DistillConfig

SETTLING_IMAGES = 256  # of the teacher and the student before the training
PARITY_IMAGES = 74  # of the comparisons of a file with PyTorch
LATENCY_CALLS = 200  # of one image, at most, when the latency of a file is measured
ANSWERS_CHUNK = 512  # images of one batch when a student is scored
AUDIT_CHUNK = 256
CONFIDENT_SHARE = 1 / 3  # about, of the candidates among procedural images, those that are held out


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the work of a run follows from, beside its spec."""

    teacher: NetworkSize
    student: NetworkSize
    shape: tuple[int, int, int]  # (C, H, W) of an image
    num_classes: int
    offers: frozenset[str]  # what the teacher offers
    normalised: bool  # the student has BatchNorms while it is trained
    temporary_batchnorm: bool = False  # those are not its own


@dataclass(frozen=True, slots=True)
class PhaseWork:
    """The work of one phase. `units` counts what the phase's name says, see `Phase`."""

    phase: Phase
    units: int
    passes: tuple[Passes, ...] = ()
    drawn: float = 0  # images that a program draws, counted in pictures of shapes that take as long
    augmented: int = 0  # images that are shifted, turned and blended
    compared: int = 0  # images of which the blocks of student and teacher are compared
    synthesized: int = 0  # images that the run's counter counts

    def images(self, network: Network) -> int:
        """Return the number of images that go forward through a network."""
        return sum(each.images for each in self.passes if each.network == network)


@dataclass(frozen=True, slots=True)
class Work:
    """The work of a run: one entry for each phase, in the order in which they begin."""

    phases: tuple[PhaseWork, ...]
    sizes: Mapping[Network, NetworkSize]
    pixels: int  # of one image, in all channels

    def phase(self, phase: Phase) -> PhaseWork:
        """Return the work of one phase; a phase that the run does not have counts zero units."""
        return next((each for each in self.phases if each.phase == phase), PhaseWork(phase, 0))

    @property
    def training(self) -> list[PhaseWork]:
        """The phases of the loop, without preparation, audit and files."""
        outside = (Phase.PREPARE, Phase.AUDIT, Phase.EXPORT, Phase.VERIFY)
        return [each for each in self.phases if each.phase not in outside]


def work_of(config: DistillConfig, facts: RunFacts) -> Work:
    """Return the work of a run with resolved numbers."""
    rounds = Rounds.of(config)
    found = [
        _prepare(config),
        *_procedural(config, rounds),
        *_synthesis(config, rounds, facts),
        *_memory(config, rounds, facts),
        _student(config),
        _evaluation(config, rounds, facts),
        _audit(config, rounds, facts),
        PhaseWork(Phase.EXPORT, 1),
        _verify(config),
    ]
    sizes = {Network.TEACHER: facts.teacher, Network.STUDENT: facts.student, **sizes_of(config, facts.shape)}
    return Work(tuple(each for each in found if each.units), sizes, math.prod(facts.shape))


def _prepare(config: DistillConfig) -> PhaseWork:
    settling = [passes(network, Direction.FORWARD, SETTLING_IMAGES) for network in (Network.TEACHER, Network.STUDENT)]
    options = config.method_options
    found = (*settling, *options.start_passes())
    return PhaseWork(Phase.PREPARE, 1, found, drawn=SETTLING_IMAGES + options.start_drawn())


def _procedural(config: DistillConfig, rounds: Rounds) -> list[PhaseWork]:
    options = config.procedural
    if not options.share:
        return []
    labels = [_label(count) for count in chunks(options.images_per_round, config.compute.label_chunk)]
    made, cost = options.images_per_round * rounds.drawing, mean_cost(options.kinds)
    found = [PhaseWork(Phase.PROCEDURAL, made, _times(labels, rounds.drawing), drawn=made * cost, synthesized=made)]
    refinement = options.refinement
    if refinement.share:
        once = [
            each
            for count in chunks(refinement.images_per_round, config.compute.chunk)
            for each in (
                _label(count),
                passes(Network.TEACHER, Direction.TO_INPUT, count, times=refinement.steps),
            )
        ]
        made = refinement.images_per_round * rounds.drawing
        work = PhaseWork(Phase.REFINEMENT, made, _times(once, rounds.drawing), drawn=made * cost, synthesized=made)
        found.append(work)
    return found


def _synthesis(config: DistillConfig, rounds: Rounds, facts: RunFacts) -> list[PhaseWork]:
    options = config.method_options
    found = []
    for phase, number in (Phase.WARM_UP, rounds.warmup), (Phase.SYNTHESIS, rounds.synthesizing):
        updates = number * options.updates_per_round
        once = options.update_passes(facts.shape, feedback=phase == Phase.SYNTHESIS)
        if not options.optimises_images:
            once = _recomputed(once, config)
        made = updates * options.batch_size
        drawn = updates * options.update_drawn()
        found.append(PhaseWork(phase, made, _times(once, updates), drawn=drawn, synthesized=made))
    return [*found, _fresh(config, rounds)]


@dataclass(frozen=True, slots=True)
class _Samples:
    """The fresh images of a run: the rounds that have some, and how many there are, in a round and in all."""

    rounds: int
    each: int
    total: int

    @staticmethod
    def of(config: DistillConfig, rounds: Rounds) -> "_Samples":
        """Return the samples; images that are optimised one by one are each given once, in the warm-up too."""
        options = config.method_options
        most = config.training.fresh_batches * options.batch_size
        if not options.optimises_images:
            return _Samples(rounds.teaching, most, rounds.teaching * most)
        made = options.updates_per_round * options.batch_size
        learning = rounds.warmup + rounds.synthesizing
        total = min((rounds.warmup + rounds.teaching) * most, learning * made)
        return _Samples(-(-total // min(most, made)), min(most, made), total)


def _fresh(config: DistillConfig, rounds: Rounds) -> PhaseWork:
    samples, options = _Samples.of(config, rounds), config.method_options
    held_out = held_out_of(samples.each)
    labels = [_label(held_out), _label(samples.each - held_out)]
    if config.compute.precision == "bf16":
        labels.append(_label(held_out))  # once more in fp32
    once = [*options.sample_passes(samples.each), *labels]
    counted = 0 if options.optimises_images else samples.total
    return PhaseWork(Phase.FRESH, samples.total, _times(once, samples.rounds), synthesized=counted)


def _memory(config: DistillConfig, rounds: Rounds, facts: RunFacts) -> list[PhaseWork]:
    samples = _Samples.of(config, rounds)
    rehearsal = Rehearsal(
        remembered=samples.rounds,
        fresh=samples.each - held_out_of(samples.each),
        replays=rounds.teaching,
        replayed=config.training.replays_per_round,
        starts_empty=not (config.method_options.optimises_images and rounds.warmup),
    )
    found = _recomputed(config.memory_options.run_passes(rehearsal, facts.offers), config)
    return [PhaseWork(Phase.MEMORY, samples.rounds, _times(found, 1))]


def _student(config: DistillConfig) -> PhaseWork:
    training, steps = config.training, config.budget.steps
    changes = training.augmentation.active or training.valid_range
    learns_more = max(training.feature_weight, training.block_weight, training.attention_weight) > 0
    once = [passes(Network.STUDENT, Direction.TO_WEIGHTS, training.batch_size)]
    if changes or learns_more:
        once.append(_label(training.batch_size))
    if training.anchor_weight:
        once.append(passes(Network.STUDENT, Direction.FORWARD, training.batch_size))
    seen = steps * training.batch_size
    augmented, compared = seen if changes else 0, seen if training.block_weight else 0
    return PhaseWork(Phase.STUDENT, steps, _times(once, steps), augmented=augmented, compared=compared)


def _evaluation(config: DistillConfig, rounds: Rounds, facts: RunFacts) -> PhaseWork:
    size, once = config.steadiness.probe_size, []
    for _ in range(3):  # the student, its average and the published student
        once.append(Passes(Network.STUDENT, Direction.FORWARD, size, -(-size // ANSWERS_CHUNK)))
    augmented = 0
    if facts.normalised:
        once.append(passes(Network.STUDENT, Direction.FORWARD, BATCHNORM_BATCH_SIZE, times=BATCHNORM_BATCHES))
        augmented = rounds.evaluations * BATCHNORM_BATCH_SIZE * BATCHNORM_BATCHES
    return PhaseWork(Phase.EVALUATION, rounds.evaluations, _times(once, rounds.evaluations), augmented=augmented)


def _audit(config: DistillConfig, rounds: Rounds, facts: RunFacts) -> PhaseWork:
    """Return the images that are made to complete the audit set, if the classes are balanced."""
    samples, options, wanted = _Samples.of(config, rounds), config.method_options, config.steadiness.audit_size
    if options.optimises_images:
        wanted = min(wanted, COSTLY_AUDIT)
    held_out = samples.rounds * (held_out_of(samples.each) // AUDIT_PART)
    missing = wanted - held_out - round(rounds.drawing * _audited_procedural(config))
    if missing <= 0:
        return PhaseWork(Phase.AUDIT, 0)
    more = _more_lots(wanted, facts.num_classes) if wanted == config.steadiness.audit_size else 0
    if not options.optimises_images:
        made = missing + more * options.batch_size
        sampled = (*options.sample_passes(made), _label(missing))
        return PhaseWork(Phase.AUDIT, made, sampled, synthesized=missing)
    updates = -(-missing // options.batch_size) + more
    once = options.update_passes(facts.shape, feedback=False)
    made = updates * options.batch_size
    drawn, counted = updates * options.update_drawn(), (*_times(once, updates), _label(missing))
    return PhaseWork(Phase.AUDIT, made, counted, drawn=drawn, synthesized=missing)


def _more_lots(places: int, num_classes: int) -> int:
    """Return how many more lots of images than places it takes, on average, until every class has filled its places.

    The classes of images are drawn at random: those that are missing last are waited for, as with collected cards. The
    logarithm was fitted to drawn examples of 2 to 1000 classes and 64 to 256 places.
    """
    return round(1.2 + 1.3 * math.log(min(num_classes, places)))


def _audited_procedural(config: DistillConfig) -> float:
    """Return about how many procedural images of a round go to the audit set: of the candidates, the confident ones."""
    options = config.procedural
    if not options.share:
        return 0.0
    drawn = options.images_per_round + (options.refinement.images_per_round if options.refinement.share else 0)
    return CONFIDENT_SHARE * drawn / PROCEDURAL_HELD_OUT / AUDIT_PART


def _verify(config: DistillConfig) -> PhaseWork:
    audited = config.steadiness.audit_size
    return PhaseWork(
        Phase.VERIFY,
        1,
        (
            Passes(Network.STUDENT, Direction.FORWARD, audited, -(-audited // AUDIT_CHUNK)),
            Passes(Network.STUDENT, Direction.FORWARD, 2 * PARITY_IMAGES, 8),
            *(passes(network, Direction.FORWARD, 1, times=LATENCY_CALLS) for network in _MEASURED),
        ),
    )


_MEASURED = (Network.TEACHER, Network.STUDENT)  # networks whose latency the report states


def _label(images: int) -> Passes:
    return passes(Network.TEACHER, Direction.FORWARD, images)


def _recomputed(found: Iterable[Passes], config: DistillConfig) -> list[Passes]:
    """Return passes with those that compute activations again, which are not kept of batches larger than a chunk."""
    made, most = list(found), config.compute.chunk
    large = [each for each in made if most is not None and each.images > most * each.batches]
    again = [replace(each, direction=Direction.FORWARD) for each in large if each.direction is not Direction.FORWARD]
    return [*made, *again]


def _times(once: Iterable[Passes], count: int) -> tuple[Passes, ...]:
    """Return what is done `count` times, without passes of no images, joined by network and direction."""
    sums: dict[tuple[Network, Direction], Passes] = {}
    for each in once:
        key, more = (each.network, each.direction), each.times(count)
        known = sums.get(key, replace(more, images=0, batches=0))
        sums[key] = replace(more, images=known.images + more.images, batches=known.batches + more.batches)
    return tuple(each for each in sums.values() if each.images)
