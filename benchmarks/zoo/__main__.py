"""`python -m benchmarks.zoo [PACKAGE ...]`: exports the nets of other packages, reads them, and records what was found.

Each package has an environment of its own, which is made where it is missing. What benchmarks/results/zoo.json holds is
not measured again: a run that was cut off goes on where it stopped. At the end the matrix in docs/teachers.md is
written anew. Exports are deleted as soon as they are read. Exit status 1 where an export is taken and computed wrongly.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.teacher_zoo import Cell
from benchmarks.zoo.packages import PACKAGES, ROOT, Package
from benchmarks.zoo.reading import exports, line, read
from benchmarks.zoo.record import NO_VERDICT_OF_OURS, PAGE, RESULTS, Record, with_matrix

AT_ONCE = 12  # families whose exports are on disk together


def measure(package: Package, python: Path, families: list[str], way: str) -> list[Cell]:
    """Export the families in one way and read them. Those that the exporter's process did not reach are left out."""
    with tempfile.TemporaryDirectory(prefix="dfkd-zoo-") as folder:
        status = package.export(python, Path(folder), families, way)
        cells = []
        for path in exports(Path(folder)):
            cells.append(read(path))
            print(line(cells[-1]), flush=True)
    found = {cell.net for cell in cells}
    lost = next((family for family in families if family not in found), None)
    if status != 0 and lost is not None:
        cells.append(Cell(lost, way, NO_VERDICT_OF_OURS, f"the exporter's process ended with status {status}"))
    return cells


def run(name: str, environments: Path, options: argparse.Namespace) -> None:
    """Measure what the record lacks of one package."""
    package = PACKAGES[name]
    python = package.python(environments)
    listed = package.exports(python)
    if options.families:
        listed = {family: ways for family, ways in listed.items() if family in options.families}
    if options.ways:
        listed = {family: [way for way in ways if way in options.ways] for family, ways in listed.items()}
    numbers = package.versions(python)
    left = Record.load().missing(name, listed, again=options.again)
    for way, families in left.items():
        waiting = list(families)
        while waiting:
            cells = measure(package, python, waiting[:AT_ONCE], way)
            if not cells:
                raise SystemExit(f"{package.module} exports nothing of {waiting[:AT_ONCE]}")
            Record.add(name, cells, numbers)
            waiting = [family for family in waiting if family not in {cell.net for cell in cells}]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the packages and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("packages", nargs="*", default=list(PACKAGES), help=", ".join(PACKAGES))
    parser.add_argument("--environments", type=Path, default=ROOT / "benchmarks" / ".cache" / "zoo")
    parser.add_argument("--families", nargs="*", help="only these")
    parser.add_argument("--ways", nargs="*", help="only these")
    parser.add_argument("--again", action="store_true", help="measure again what was not read")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from the record")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in () if options.page else options.packages:
        run(name, options.environments.resolve(), options)
    record = Record.load()
    PAGE.write_text(with_matrix(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")
    print(f"{RESULTS.relative_to(ROOT)} and {PAGE.relative_to(ROOT)} are written")
    return int(any(cell.verdict == "wrong" for cells in record.cells.values() for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
