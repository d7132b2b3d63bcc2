"""The record of the bars, what it takes for the same run, and its table."""

import json
from pathlib import Path

import torch

from benchmarks.accuracy.bar_rows import ROWS
from benchmarks.accuracy.bars import Asked, Record, table
from benchmarks.accuracy.real_images import RealImages

QUICK = Asked("mnist-lenet", "quick", 0, upper=False, settings=())


def test_a_run_that_stands_in_the_record_is_not_missing(tmp_path: Path) -> None:
    Record(tmp_path / "bars.json").add(QUICK, {"accuracy": 98.0, "teacher_accuracy": 99.0})
    again = Record(tmp_path / "bars.json")
    assert again.has(QUICK)
    for other in (
        Asked("mnist-lenet", "quick", 1, upper=False, settings=()),
        Asked("mnist-lenet", "quick", 0, upper=True, settings=()),
        Asked("mnist-lenet", "quick", 0, upper=False, settings=("distillation.compute.precision=bf16",)),
        Asked("mnist-lenet", "standard", 0, upper=False, settings=()),
    ):
        assert not again.has(other)


def test_a_run_replaces_the_same_run_and_no_other(tmp_path: Path) -> None:
    record = Record(tmp_path / "bars.json")
    other = Asked("mnist-lenet", "quick", 1, upper=False, settings=())
    for asked, accuracy in ((QUICK, 97.0), (other, 98.0), (QUICK, 99.0)):
        record.add(asked, {"accuracy": accuracy, "teacher_accuracy": 99.5})
    kept = json.loads((tmp_path / "bars.json").read_text())["runs"]
    assert [(run["seed"], run["accuracy"]) for run in kept] == [(1, 98.0), (0, 99.0)]


def test_the_table_has_means_bars_and_pairs_without_choices(tmp_path: Path) -> None:
    record = Record(tmp_path / "bars.json")
    for seed, accuracy in enumerate((97.0, 98.0, 99.0)):
        asked = Asked("mnist-lenet", "quick", seed, upper=False, settings=())
        record.add(asked, {"accuracy": accuracy, "teacher_accuracy": 99.5})
    record.add(
        Asked("mnist-lenet", "standard", 0, upper=True, settings=()), {"accuracy": 99.1, "teacher_accuracy": 99.5}
    )
    tried = Asked("mnist-lenet", "quick", 3, upper=False, settings=("distillation.compute.precision=bf16",))
    record.add(tried, {"accuracy": 10.0, "teacher_accuracy": 99.5})
    lines = table(record, ["quick", "standard"]).splitlines()
    assert "| mnist-lenet | 99.50 | 98.00 ± 1.00, n = 3 (98.3) | – (98.9) | 99.10, n = 1 |" in lines
    assert "| letters-half (no choice made on it) | – | – | – | – |" in lines
    assert len(lines) == 2 + len(ROWS)


def test_real_images_come_once_each_in_their_order() -> None:
    images = torch.arange(5.0).view(5, 1, 1, 1)
    source = RealImages(images, 2, order=torch.tensor([4, 2, 0, 1, 3]))
    for _ in range(3):
        source.synthesize(None, rate=1.0)
    state = source.state()
    given = [source.sample(count, generator=torch.Generator()).flatten().tolist() for count in (3, 9, 1)]
    assert given == [[4, 2, 0], [1, 3, 4], []]
    source.restore(state)
    assert source.sample(6, generator=torch.Generator()).flatten().tolist() == [4, 2, 0, 1, 3, 4]
