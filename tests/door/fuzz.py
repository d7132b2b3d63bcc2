"""`python -m tests.door.fuzz importer --runs 100000`: coverage-guided fuzzing of the readers of uploaded files.

The bad inputs of the table are the seeds. Nothing but our own refusals may come out; a MemoryError is one where the
inspection runs, under the same limit as here. What crashed is written where libFuzzer says.
"""

import argparse
import random
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dfkd_core"], enable_loader_override=False):
    from dfkd_core.errors import DfkdError
    from dfkd_core.inspection import inspection
    from dfkd_core.inspection.formats import safetensors_header
    from dfkd_core.inspection.formats.detection import SNIFF_BYTES, sniff
    from dfkd_core.onnx_import.ir import protobuf_scan
    from dfkd_core.onnx_import.operators import ACCEPTED
    from dfkd_core.onnx_import.ops.reference_folding import ON_CONSTANTS
    from dfkd_core.onnx_import.reader import read_plan
    from dfkd_core.spec.teacher import InputSpec, TeacherSpec

from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]  # it has no stubs
from onnx import ModelProto

from tests.door.door import FRESH, Octets
from tests.door.inputs import INPUTS

MEMORY_BYTES = 3 * 2**30
LARGEST_SEED = 32 * 1024
SECONDS_EACH = 20
SHAPED = TeacherSpec(input=InputSpec(shape=[4, 4, 6]))


def safetensors(data: bytes, path: Path) -> None:
    """The header pre-pass, and the tensors that it lets through."""
    path.write_bytes(data)
    for _ in safetensors_header.read_tensors(path, safetensors_header.read_header(path)):
        pass


def onnx_wire(data: bytes, _path: Path) -> None:
    """The wire pre-pass, and telling formats apart."""
    with suppress(DfkdError):
        sniff(data[:SNIFF_BYTES])
    protobuf_scan.check_wire(data)


def importer(data: bytes, path: Path) -> None:
    """The whole inspection, as its child does it."""
    path.write_bytes(data)
    for spec in (TeacherSpec(), SHAPED):
        inspection.inspect_file(path, spec)


def plan(data: bytes, path: Path) -> None:
    """The importer alone, whatever the first bytes look like."""
    path.write_bytes(data)
    read_plan(path, input_shape=(4, 4, 6))


def everything(data: bytes, path: Path) -> None:
    """All of them, one after the other."""
    for target in (safetensors, onnx_wire, importer, plan):
        with suppress(DfkdError, MemoryError):
            target(data, path)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "safetensors": safetensors,
    "onnx-wire": onnx_wire,
    "importer": importer,
    "plan": plan,
    "all": everything,
}


def seeds() -> Iterator[bytes]:
    """What is sent to POST /teachers by the table, where it is small, and a good teacher."""
    yield FRESH[:LARGEST_SEED]
    for entry in INPUTS:
        if isinstance(entry.send, Octets) and isinstance(entry.send.content, bytes):
            yield entry.send.content[:LARGEST_SEED]


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """Mostly another ONNX model, whose graph is changed and not its bytes; else bytes as libFuzzer changes them."""
    chance = random.Random(seed)
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return bytes(atheris.Mutate(data, most))
    if not model.graph.node or chance.random() < 0.2:
        return bytes(atheris.Mutate(data, most))
    for _ in range(chance.randint(1, 3)):
        _change(model, chance)
    with suppress(EncodeError, UnicodeEncodeError):
        content: bytes = model.SerializeToString()
        if len(content) <= most:
            return content
    return bytes(atheris.Mutate(data, most))


def _change(model: ModelProto, chance: random.Random) -> None:
    """One change of a node, a tensor or the signature."""
    graph = model.graph
    if not graph.node:
        return
    node = chance.choice(graph.node)
    found = [name for other in graph.node for name in (*other.input, *other.output)]
    names = [name for name in found if isinstance(name, str)] or [""]  # what is not UTF-8 comes as bytes
    numbers = (0, 1, -1, 2, 3, 7, 2**31, 2**62, -(2**62))
    match chance.randrange(8):
        case 0:
            node.op_type = chance.choice(sorted({*ACCEPTED, *ON_CONSTANTS}))
        case 1 if node.input:
            node.input[chance.randrange(len(node.input))] = chance.choice(names)
        case 2:
            node.input.append(chance.choice(names))
        case 3 if node.attribute:
            attribute = chance.choice(node.attribute)
            attribute.i = chance.choice(numbers)
            if attribute.ints:
                attribute.ints[chance.randrange(len(attribute.ints))] = chance.choice(numbers)
        case 4 if graph.initializer:
            tensor = chance.choice(graph.initializer)
            if tensor.dims:
                tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(numbers)
        case 5:
            graph.node.remove(node)
        case 6 if graph.input and graph.input[0].type.tensor_type.shape.dim:
            chance.choice(graph.input[0].type.tensor_type.shape.dim).dim_value = chance.choice((*numbers, 4, 6, 224))
        case _:
            node.attribute.extend(list(chance.choice(graph.node).attribute))


def main() -> None:
    """Fuzz until the runs are done; the process ends with libFuzzer's status."""
    parser = argparse.ArgumentParser(prog="python -m tests.door.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=0, help="at most; 0: as long as the runs take")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--corpus", type=Path, default=None, help="kept between calls; a temporary one when absent")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="dfkd-fuzz-", dir=memory if memory.is_dir() else None))
    corpus = given.corpus or directory / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number:04}").write_bytes(seed)
    target = TARGETS[given.target]

    def once(data: bytes) -> None:
        with suppress(DfkdError, MemoryError):
            target(data, directory / "teacher")

    words = [f"-runs={given.runs}", f"-seed={given.seed}", f"-max_total_time={given.seconds}", "-print_final_stats=1"]
    words += [f"-timeout={SECONDS_EACH}", "-rss_limit_mb=0", f"-max_len={2 * LARGEST_SEED}"]
    words += [f"-artifact_prefix={directory}/", "-close_fd_mask=0"]
    shaping = {"custom_mutator": mutated} if given.target in ("importer", "plan", "all") else {}
    atheris.Setup([sys.argv[0], *words, str(corpus)], once, **shaping)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
