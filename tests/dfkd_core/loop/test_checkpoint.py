import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dfkd_core.errors import CheckpointMismatch
from dfkd_core.loop.checkpoint import CheckpointWriter, fingerprint_of, read_checkpoint, write_checkpoint, written
from tests.dfkd_core.tiny import tiny_config, tiny_network, tiny_teacher

CPU = torch.device("cpu")


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other and type(one) is type(other))


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    network = tiny_network(batchnorm=True)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    tree = {
        "network": dict(network.state_dict()),
        "optimizer": {"state": optimizer.state_dict()["state"]},  # integer keys
        "numbers": [1, 0.1 + 0.2, None, True, "word"],
        "bytes": torch.arange(5, dtype=torch.uint8),
        "shared": [network[0].weight.detach(), network[0].weight.detach()],
        "strided": torch.arange(12.0).view(3, 4).t(),
        "empty": torch.zeros((0, 3)),
    }
    path = tmp_path / "one.safetensors"
    write_checkpoint(path, tree, fingerprint={})
    assert same(read_checkpoint(path, fingerprint={}), tree)


def test_what_was_read_does_not_keep_the_file_in_memory(tmp_path: Path) -> None:
    """The library's tensors all lie in one mapping of the file, so a single one of them keeps the whole file there."""
    path = tmp_path / "one.safetensors"
    write_checkpoint(path, {"large": torch.zeros(1 << 16), "small": torch.ones(3)}, fingerprint={})
    small = read_checkpoint(path, fingerprint={})["small"]
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert small.tolist() == [1, 1, 1]


def test_what_is_neither_number_nor_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold a set"):
        write_checkpoint(tmp_path / "one.safetensors", {"a": {1}}, fingerprint={})
    assert list(tmp_path.iterdir()) == []


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for path in paths:
        write_checkpoint(path, {"x": torch.ones(3), "y": {"z": 1}}, fingerprint={"f": "1"})
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_last_two_are_kept_and_no_temporary_file(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path / "new", every_seconds=0)
    paths = [writer.write({"step": step}, fingerprint={}) for step in range(4)]
    assert written(writer.directory) == paths[2:]
    assert sorted(writer.directory.iterdir()) == paths[2:]
    assert read_checkpoint(paths[3], fingerprint={}) == {"step": 3}


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    CheckpointWriter(tmp_path, every_seconds=0).write({"step": 1}, fingerprint={})
    path = CheckpointWriter(tmp_path, every_seconds=0).write({"step": 2}, fingerprint={})
    assert path.name == "checkpoint-000002.safetensors"


def test_a_checkpoint_is_due_when_the_interval_has_passed(tmp_path: Path) -> None:
    assert CheckpointWriter(tmp_path, every_seconds=0).due()
    assert not CheckpointWriter(tmp_path, every_seconds=3600).due()


def test_another_fingerprint_is_refused_by_name(tmp_path: Path) -> None:
    path = CheckpointWriter(tmp_path, every_seconds=0, fingerprint={"job": "a"}).write({}, fingerprint={"threads": "2"})
    assert read_checkpoint(path, fingerprint={"threads": "2", "job": "a"}) == {}
    with pytest.raises(CheckpointMismatch, match="different threads"):
        read_checkpoint(path, fingerprint={"threads": "1", "job": "a"})


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint-000001.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointMismatch):
        read_checkpoint(path, fingerprint={})


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = CheckpointWriter(tmp_path, every_seconds=0).write({"x": torch.ones(100)}, fingerprint={})
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointMismatch, match="cannot be read"):
        read_checkpoint(path, fingerprint={})


def test_the_fingerprint_tells_config_teacher_and_student_apart() -> None:
    def facts(config: Any = None, teacher: nn.Module | None = None, student: nn.Module | None = None) -> str:
        return json.dumps(
            fingerprint_of(config or tiny_config(), teacher or tiny_teacher(), student or tiny_network(), device=CPU)
        )

    other_weights = tiny_teacher()
    with torch.no_grad():
        other_weights.network[0].weight.view(-1)[0] += 1e-6
    others = [facts(tiny_config(seed=1)), facts(None, other_weights), facts(None, None, tiny_network(5))]
    assert facts() == facts()
    assert len({facts(), *others}) == 4
