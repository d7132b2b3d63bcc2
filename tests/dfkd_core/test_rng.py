import torch
from torch.utils import deterministic

from dfkd_core.rng import Streams, reproducible


def test_new_tensors_are_not_filled_while_algorithms_are_deterministic() -> None:
    before = (torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory)
    with reproducible(torch.get_num_threads()):
        assert torch.are_deterministic_algorithms_enabled()
        assert not deterministic.fill_uninitialized_memory
    assert (torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory) == before


def test_a_stream_depends_on_seed_and_name_alone() -> None:
    one, other = Streams(1), Streams(1)
    torch.rand(100, generator=other["something else"])
    assert torch.equal(torch.rand(5, generator=one["a"]), torch.rand(5, generator=other["a"]))
    assert not torch.equal(torch.rand(5, generator=one["a"]), torch.rand(5, generator=one["b"]))
    assert not torch.equal(torch.rand(5, generator=Streams(1)["a"]), torch.rand(5, generator=Streams(2)["a"]))


def test_who_holds_a_stream_goes_on_with_it_after_a_restore() -> None:
    streams = Streams(0)
    held = streams["a"]
    torch.rand(3, generator=held)
    state = streams.state()
    expected = torch.rand(4, generator=held)
    streams.restore(state)
    assert torch.equal(torch.rand(4, generator=held), expected)
