"""Micro-batches: how many images a run computes at a time, so that their activations fit into a given memory.

The sizes follow from the teacher, the student and one setting of the deployment, and stand in the spec before the job
exists. So they are the same wherever the job runs, and equal specs give equal bytes.
"""

from dfkd_core.options.passes import Network
from dfkd_core.planning.sizes import FLOAT_BYTES, sizes_of
from dfkd_core.planning.work import RunFacts
from dfkd_core.spec.compute import LEAST_TRAINED
from dfkd_core.spec.config import DistillConfig

ACTIVATION_BYTES = 1024**3  # for the activations of one micro-batch or chunk, where the deployment says nothing else
MOST = 8192  # as many as any batch
MATCHED = 0.7  # of a student's activations are kept once more where its blocks are compared with the teacher's
KEPT_BY_TEMPORARY = 0.25  # the same, of temporary BatchNorms, which keep what they read


def with_micro_batches(config: DistillConfig, facts: RunFacts, *, activation_bytes: int) -> DistillConfig:
    """Return `config` with the sizes that it leaves open."""
    student, teacher = facts.student.activation_bytes, facts.teacher.activation_bytes
    trained = round(student * kept_in_update(config, facts))
    fitting = {
        "micro_batch": max(LEAST_TRAINED, _fitting(activation_bytes, trained)),
        "chunk": _fitting(activation_bytes, _kept_in_chunk(config, facts)),
        "label_chunk": _fitting(activation_bytes, teacher),
    }
    open_sizes = {name: size for name, size in fitting.items() if getattr(config.compute, name) is None}
    return config.model_copy(update={"compute": config.compute.model_copy(update=open_sizes)})


def kept_in_update(config: DistillConfig, facts: RunFacts) -> float:
    """Return how much an update keeps of an image, in units of the student's activations."""
    return 1 + MATCHED * (config.training.block_weight > 0) + KEPT_BY_TEMPORARY * facts.temporary_batchnorm


def kept_of_teacher(config: DistillConfig) -> float:
    """Return how much a gradient keeps of an image that the method inverts, in units of the teacher's activations."""
    return 1 + KEPT_BY_TEMPORARY * config.method_options.inserts_batchnorm


def _kept_in_chunk(config: DistillConfig, facts: RunFacts) -> int:
    """Return the bytes that a gradient of one image keeps in all networks: of the method, or of a learning memory."""
    own = {network: size.activation_bytes for network, size in sizes_of(config, facts.shape).items()}
    student = config.method_options.feedback_images(facts.shape) * facts.student.activation_bytes
    synthesized = student + own.get(Network.GENERATOR, 0)
    remembered = own.get(Network.ENCODER, 0) + own.get(Network.DECODER, 0)
    synthesized += FLOAT_BYTES * config.method_options.kept_values(facts.shape)
    return round(kept_of_teacher(config) * facts.teacher.activation_bytes) + max(synthesized, remembered)


def _fitting(memory_bytes: int, bytes_of_image: int) -> int:
    return max(1, min(MOST, memory_bytes // max(1, bytes_of_image)))
