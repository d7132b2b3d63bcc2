"""The linear map from a student's features to its teacher's, solved again at each update."""

import pytest
import torch
from torch import Tensor

from dfkd_core.networks.regressor import Regressor


def rows(count: int, width: int, *, seed: int) -> Tensor:
    return torch.randn((count, width), generator=torch.Generator().manual_seed(seed))


def test_features_that_depend_linearly_on_the_students_are_guessed() -> None:
    known = rows(200, 3, seed=0)
    wanted = known @ rows(3, 5, seed=1) + rows(1, 5, seed=2)
    assert torch.allclose(Regressor().guess(known, wanted), wanted, atol=0.02)


def test_the_map_follows_a_student_whose_features_change() -> None:
    regressor, wanted = Regressor(), rows(200, 3, seed=0)
    for known in [wanted] * 20 + [-wanted] * 60:
        guess = regressor.guess(known, wanted)
        regressor.remember()
    assert torch.allclose(guess, wanted, atol=0.05)


def test_earlier_updates_steady_the_map_of_a_small_batch() -> None:
    true, noise = rows(6, 4, seed=0), rows(4000, 4, seed=1)
    everything = rows(4000, 6, seed=2)
    wanted = everything @ true + noise
    steady = Regressor()
    for part in range(0, 3200, 160):
        steady.guess(everything[part : part + 160], wanted[part : part + 160])
        steady.remember()
    fresh, last = Regressor(), slice(3990, 4000)
    errors = [
        (each.guess(everything[last], wanted[last]) - everything[last] @ true).square().mean()
        for each in (steady, fresh)
    ]
    assert float(errors[0]) < 0.5 * float(errors[1])


def test_the_parts_of_one_update_count_as_one() -> None:
    known, wanted = rows(64, 3, seed=0), rows(64, 2, seed=1)
    whole, parts = Regressor(), Regressor()
    whole.guess(known, wanted)
    for part in range(0, 64, 16):
        parts.guess(known[part : part + 16], wanted[part : part + 16])
    for each in whole, parts:
        each.remember()
    assert whole.state()["updates"] == parts.state()["updates"] == 1
    assert torch.allclose(whole.state()["moments"], parts.state()["moments"], atol=1e-5)


def test_the_gradient_reaches_the_students_features_only() -> None:
    known, wanted = rows(16, 3, seed=0).requires_grad_(), rows(16, 2, seed=1).requires_grad_()
    Regressor().guess(known, wanted).sum().backward()
    assert known.grad is not None
    assert wanted.grad is None


def test_it_remembers_nothing_before_the_first_update() -> None:
    regressor = Regressor()
    regressor.remember()
    assert regressor.state() == {}
    for of_before in {}, {"regressor": torch.zeros(3, 2), "optimizer": {}}:
        regressor.restore(of_before, device=torch.device("cpu"))
        assert regressor.state() == {}


@pytest.mark.parametrize("width", [1, 8])
def test_features_that_never_vary_give_a_finite_map(width: int) -> None:
    assert Regressor().guess(torch.zeros(16, width), rows(16, 2, seed=0)).isfinite().all()
