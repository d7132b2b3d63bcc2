"""The largest memory that a job's runner will need, from the sizes of its networks, batches and banks (torch-free)."""

from collections.abc import Mapping
from dataclasses import dataclass

from dfkd_core.architectures.cost import NetworkCost
from dfkd_core.options.passes import Network
from dfkd_core.planning.forecast import JobFacts, costs_of_networks
from dfkd_core.planning.micro_batches import MOST, kept_in_update, kept_of_teacher
from dfkd_core.planning.rounds import PROCEDURAL_CHUNK, RECENT_SHARE, SNAPSHOT_ROUNDS, SNAPSHOTS, Rounds
from dfkd_core.planning.sizes import FLOAT_BYTES, IN_MEMORY_BYTES, NetworkSize, procedural_places
from dfkd_core.planning.work import work_of
from dfkd_core.planning.worker_speed import WorkerSpeed
from dfkd_core.spec.compute import LEAST_TRAINED
from dfkd_core.spec.config import DistillConfig

TEACHER_COPIES = 4  # of the weights: the network, the file, its arrays, and ONNX Runtime's while they are compared
STUDENT_COPIES = 8  # weights, gradient, two moments of Adam, average, published student, two more while they change
TRAINED_COPIES = 4  # of a network's weights: those, their gradient, two moments of Adam
HEALTHY_COPIES = 3  # of a healthy state of a generator that lives for the whole run, with the moments
WORKING_BYTES = 200_000_000  # of the allocator and of the kernels' work space, whatever the networks
KEPT = 1.15  # of the activations that a gradient needs, with what is allocated beside them
HALF_BYTES = 2  # of a pixel in 16 bits
PASSING = 3  # of the largest output: input, output and work space of one layer while no gradient is kept


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """The parts of a job's memory, in bytes."""

    base: int
    weights: int
    activations: int
    images: int

    @property
    def total(self) -> int:
        """The largest memory at one time."""
        return self.base + self.weights + self.activations + self.images


def memory_need(config: DistillConfig, facts: JobFacts, speed: WorkerSpeed) -> MemoryNeed:
    """Return what the runner needs at most; on a GPU, what it needs of the GPU's memory."""
    work = work_of(config, facts.run)
    teacher, student = facts.run.teacher, facts.run.student
    return MemoryNeed(
        base=speed.base_bytes + WORKING_BYTES if speed.device_bytes is None else WORKING_BYTES,
        weights=FLOAT_BYTES
        * (
            TEACHER_COPIES * teacher.parameters + STUDENT_COPIES * student.parameters + _own_weights(config, work.sizes)
        ),
        activations=_activations(config, facts, costs_of_networks(config, facts, work)),
        images=_images(config, facts, work.pixels, on_gpu=speed.device_bytes is not None),
    )


def _own_weights(config: DistillConfig, sizes: Mapping[Network, NetworkSize]) -> int:
    """Return the weights, with all copies, of the networks that method and memory bring."""
    copies = dict.fromkeys((Network.GENERATOR, Network.ENCODER, Network.DECODER), TRAINED_COPIES)
    if not config.method_options.optimises_images:  # before the first such state stands the generator's start
        rounds = Rounds.of(config)
        snapshots = (rounds.warmup + rounds.teaching) // SNAPSHOT_ROUNDS
        copies[Network.GENERATOR] += min(SNAPSHOTS, snapshots) * HEALTHY_COPIES + (snapshots < SNAPSHOTS)
    return sum(count * sizes[network].parameters for network, count in copies.items() if network in sizes)


def _activations(config: DistillConfig, facts: JobFacts, costs: Mapping[Network, NetworkCost]) -> int:
    """Return the bytes of the largest micro-batch or chunk that goes through the networks."""
    teacher, student = costs[Network.TEACHER], costs[Network.STUDENT]
    training, sizes = config.training, config.compute
    labels = sizes.label_chunk or MOST
    kept = KEPT * kept_in_update(config, facts.run) * student.activations
    updated = min(training.batch_size, sizes.micro_batch or MOST) * kept
    labelled = min(training.batch_size, labels) * PASSING * teacher.largest
    found = [KEPT * _synthesized(config, facts, costs), KEPT * _remembered(config, costs), updated + labelled]
    if config.procedural.share:
        drawn = min(PROCEDURAL_CHUNK, config.procedural.images_per_round, labels)
        found.append(drawn * PASSING * teacher.largest)
        if config.procedural.refinement.share:
            refined = min(config.procedural.refinement.images_per_round, sizes.chunk or MOST)
            found.append(refined * KEPT * teacher.activations)
    return round(FLOAT_BYTES * max(found))


def _synthesized(config: DistillConfig, facts: JobFacts, costs: Mapping[Network, NetworkCost]) -> int:
    """Return the values that an update of the synthesizer keeps."""
    method, teacher = config.method_options, round(kept_of_teacher(config) * costs[Network.TEACHER].activations)
    generator = costs[Network.GENERATOR].activations if Network.GENERATOR in costs else 0
    student = method.feedback_images(facts.run.shape) * costs[Network.STUDENT].activations
    if method.optimises_images:
        drawn = method.kept_values(facts.run.shape)
        return min(method.batch_size, config.compute.chunk or MOST) * (teacher + student + generator + drawn)
    return _kept(method.batch_size, config, teacher, student, generator)


def _remembered(config: DistillConfig, costs: Mapping[Network, NetworkCost]) -> int:
    """Return the values that an update of a learning memory, or its replay, keeps."""
    images = config.memory_options.largest_batch(config.training.replays_per_round)
    networks = (Network.ENCODER, Network.DECODER, Network.TEACHER)
    return _kept(images, config, *(costs[network].activations for network in networks if network in costs))


def _kept(images: int, config: DistillConfig, *networks: int) -> int:
    """Return what is kept of a batch that goes through networks: of all of it, or of one network's chunk at a time."""
    most = max(LEAST_TRAINED, config.compute.chunk or MOST)
    return images * sum(networks) if images <= most else most * max(networks)


def _images(config: DistillConfig, facts: JobFacts, pixels: int, *, on_gpu: bool) -> int:
    """Return the bytes of the images that are kept: banks, memory, probe, audit set, fresh and replayed images."""
    rounds, num_classes = Rounds.of(config), facts.run.num_classes
    method, training, procedural = config.method_options, config.training, config.procedural
    kept = 0
    if procedural.share:
        for options in (procedural, procedural.refinement) if procedural.refinement.share else (procedural,):
            places = procedural_places(options.capacity, pixels=pixels, num_classes=num_classes)
            drawn = options.images_per_round * rounds.drawing
            kept += _bank(places, drawn, pixels=pixels, num_classes=num_classes)
    made = method.batch_size * method.updates_per_round * (rounds.warmup + rounds.synthesizing)
    kept += _bank(getattr(config.memory_options, "capacity", 0), made, pixels=pixels, num_classes=num_classes)
    judged = _judged(config.steadiness.probe_size, config.steadiness.audit_size, pixels=pixels)
    fresh = FLOAT_BYTES * training.fresh_rounds * training.fresh_batches * method.batch_size
    in_bytes = hasattr(config.memory_options, "capacity") and not on_gpu  # what was stored is kept in 8 bits
    rounds_of_bytes = training.fresh_rounds if in_bytes else FLOAT_BYTES * (training.fresh_rounds + 1)
    return kept + judged + pixels * (fresh + training.replays_per_round * rounds_of_bytes)


def _bank(places: int, shown: int, *, pixels: int, num_classes: int) -> int:
    """Return the bytes of a bank in 8 bits with logits in 16, to which so many images were shown.

    The images of a bank that is large when it is full lie in a file, which does not count.
    """
    in_memory = places * pixels <= IN_MEMORY_BYTES
    return min(places, shown) * (pixels * in_memory + HALF_BYTES * num_classes)


def _judged(*sizes: int, pixels: int) -> int:
    """Return the bytes of the images of probe and audit set, each of which has its history and its newest images.

    Those that are large together lie in a file.
    """
    places = [places for size in sizes for places in (size - size // RECENT_SHARE, size // RECENT_SHARE)]
    return sum(size for size in (HALF_BYTES * pixels * count for count in places) if size <= IN_MEMORY_BYTES)
