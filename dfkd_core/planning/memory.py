"""The largest memory that a job's runner will need, from the sizes of its networks, batches and banks (torch-free)."""

from collections.abc import Mapping
from dataclasses import dataclass

from dfkd_core.architectures.cost import NetworkCost
from dfkd_core.options.passes import Network
from dfkd_core.planning.forecast import JobFacts, costs_of_networks
from dfkd_core.planning.micro_batches import MOST, kept_in_update
from dfkd_core.planning.rounds import PROCEDURAL_CHUNK, SNAPSHOT_ROUNDS, SNAPSHOTS, Rounds
from dfkd_core.planning.sizes import FLOAT_BYTES, IN_MEMORY_BYTES, NetworkSize
from dfkd_core.planning.work import work_of
from dfkd_core.planning.worker_speed import WorkerSpeed
from dfkd_core.spec.compute import LEAST_TRAINED
from dfkd_core.spec.config import DistillConfig

BANK_BYTES = 128 * 2**20  # most of one bank of procedural images
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
        images=_images(config, facts, work.pixels),
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
    method, teacher = config.method_options, costs[Network.TEACHER].activations
    generator = costs[Network.GENERATOR].activations if Network.GENERATOR in costs else 0
    student = method.feedback_images(facts.run.shape) * costs[Network.STUDENT].activations
    if method.optimises_images:
        return min(method.batch_size, config.compute.chunk or MOST) * (teacher + student + generator)
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


def _images(config: DistillConfig, facts: JobFacts, pixels: int) -> int:
    """Return the bytes of the images that are kept: banks, memory, probe, audit set and fresh images.

    A memory whose places exceed what is kept in memory lies in a file, which does not count.
    """
    rounds, place = Rounds.of(config), pixels + 2 * facts.run.num_classes
    kept = 0
    procedural = config.procedural
    if procedural.share:
        drawn = procedural.images_per_round * rounds.drawing
        kept += min(BANK_BYTES, place * min(procedural.capacity, drawn))
        if procedural.refinement.share:
            drawn = procedural.refinement.images_per_round * rounds.drawing
            kept += min(BANK_BYTES, place * min(procedural.refinement.capacity, drawn))
    method, training = config.method_options, config.training
    made = method.batch_size * method.updates_per_round * (rounds.warmup + rounds.synthesizing)
    capacity = getattr(config.memory_options, "capacity", 0)
    kept += place * min(capacity, made) if capacity * pixels <= IN_MEMORY_BYTES else 0
    judged = HALF_BYTES * (config.steadiness.probe_size + config.steadiness.audit_size)
    fresh = FLOAT_BYTES * training.fresh_rounds * training.fresh_batches * method.batch_size
    stored = hasattr(config.memory_options, "capacity")  # replayed images are those that were stored, in 8 bits
    replayed = training.replays_per_round * (FLOAT_BYTES + training.fresh_rounds * (1 if stored else FLOAT_BYTES))
    return kept + pixels * (judged + fresh + replayed)
