"""The record of the zoo, benchmarks/results/zoo.json, and its matrix in docs/teachers.md."""

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.hardware import describe_hardware
from benchmarks.teacher_zoo import GRADIENT, PARITY, Cell, table, versions

RESULTS = Path(__file__).parents[1] / "results" / "zoo.json"
PAGE = Path(__file__).parents[2] / "docs" / "teachers.md"
BEGIN, END = "<!-- packages: python -m benchmarks.zoo -->", "<!-- /packages -->"
NO_VERDICT_OF_OURS = "cannot-export"


@dataclass
class Record:
    """The cells of each package, and the versions of what exported them."""

    cells: dict[str, list[Cell]] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path = RESULTS) -> "Record":
        """Return what is recorded; nothing where there is no record yet."""
        if not path.exists():
            return cls()
        packages = json.loads(path.read_text(encoding="utf-8"))["packages"]
        return cls(
            {name: [Cell(**cell) for cell in package["cells"]] for name, package in packages.items()},
            {name: package["versions"] for name, package in packages.items()},
        )

    def save(self, path: Path = RESULTS) -> None:
        """Write the record, a cell on each line."""
        packages: dict[str, Any] = {}
        for name in sorted(self.cells):
            cells = sorted(self.cells[name], key=lambda cell: (cell.net, cell.way))
            packages[name] = {"versions": self.versions[name], "cells": [asdict(cell) for cell in cells]}
        record = {"hardware": describe_hardware(), "versions": versions()}
        record |= {"limits": {"parity": PARITY, "gradient": GRADIENT}}
        head = json.dumps(record, indent=1)[:-2]
        parts = []
        for name, package in packages.items():
            lines = ",\n".join(f"   {json.dumps(cell)}" for cell in package["cells"])
            parts.append(f'  "{name}": {{"versions": {json.dumps(package["versions"])}, "cells": [\n{lines}\n  ]}}')
        body = ",\n".join(parts)
        aside = path.with_suffix(".tmp")
        aside.write_text(f'{head},\n "packages": {{\n{body}\n }}\n}}\n', encoding="utf-8")
        aside.replace(path)

    @classmethod
    def add(cls, package: str, found: Iterable[Cell], numbers: dict[str, str], path: Path = RESULTS) -> None:
        """Add cells to the file; several runs may do so at once, and lock the folder against each other."""
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            record = cls.load(path)
            record.versions[package] = numbers
            record.put(package, found)
            record.save(path)
        finally:
            os.close(folder)

    def put(self, package: str, found: Iterable[Cell]) -> None:
        """Add cells, or replace those that are there."""
        cells = {(cell.net, cell.way): cell for cell in self.cells.get(package, [])}
        cells |= {(cell.net, cell.way): cell for cell in found}
        self.cells[package] = list(cells.values())

    def missing(self, package: str, exports: dict[str, list[str]], *, again: bool) -> dict[str, list[str]]:
        """Return the families that each way still lacks; with `again` also those that were not read."""
        done = {(cell.net, cell.way) for cell in self.cells.get(package, []) if cell.verdict == "read" or not again}
        ways = list(dict.fromkeys(way for found in exports.values() for way in found))
        left = {way: [net for net, own in exports.items() if way in own and (net, way) not in done] for way in ways}
        return {way: nets for way, nets in left.items() if nets}


def page(record: Record) -> str:
    """Return the counts, the matrix of each package and every refusal, in Markdown."""
    parts = [_introduction(record), _counts(record)]
    for name, cells in record.cells.items():
        made_with = ", ".join(f"{package} {number}" for package, number in record.versions[name].items())
        ways = list(dict.fromkeys(cell.way for cell in cells))
        parts += [f"**{name}** ({made_with})", table(cells, ways)]
        parts += [listed for listed in (_reasons(cells, ours=True), _reasons(cells, ours=False)) if listed]
    return "\n\n".join(parts)


def _introduction(record: Record) -> str:
    cells = [cell for found in record.cells.values() for cell in found]
    read = [cell for cell in cells if cell.verdict == "read"]
    judged = [cell for cell in cells if cell.verdict != NO_VERDICT_OF_OURS]
    families = sum(len({cell.net for cell in found}) for found in record.cells.values())
    single = [cell for cell in read if cell.rounding is None]
    worst = max(cell.parity or 0.0 for cell in read), max(cell.gradient or 0.0 for cell in single)
    return (
        f"{families} families of {len(record.cells)} packages, {len(judged)} exports, {len(read)} of them "
        f"({len(read) / len(judged):.0%}) read; {len(cells) - len(judged)} more fail in the exporters themselves. "
        f"The largest difference to ONNX Runtime or to the original's logits is {worst[0]:.0e} of the largest logit "
        f"(allowed: {PARITY:.0e}), the largest error of the gradient at the images {worst[1]:.0e} of the original's "
        f"(allowed: {GRADIENT:.0e}){_rounded(record)}. A cell holds the larger of the two; – : the exporter itself "
        "refuses the net or writes another one; empty: not in this record."
    )


def _rounded(record: Record) -> str:
    """Return what is said of the gradients that were compared in float64."""
    found = [
        f"{cell.net} of {name} ({cell.way}): {cell.gradient:.0e}, rounding {cell.rounding:.0e}"
        for name, cells in record.cells.items()
        for cell in cells
        if cell.verdict == "read" and cell.rounding is not None
    ]
    if not found:
        return ""
    return "; where that is missed, the gradient in float64 may be off by three times float32's rounding: " + "; ".join(
        found
    )


def _counts(record: Record) -> str:
    lines = ["| package | exporter | families | read | refused | the exporter refuses |", "|---|---|---|---|---|---|"]
    for name, cells in record.cells.items():
        for way in dict.fromkeys(cell.way for cell in cells):
            found = [cell.verdict for cell in cells if cell.way == way]
            read, failed = found.count("read"), found.count(NO_VERDICT_OF_OURS)
            lines.append(f"| {name} | {way} | {len(found)} | {read} | {len(found) - read - failed} | {failed} |")
    return "\n".join(lines)


def _reasons(cells: list[Cell], *, ours: bool) -> str:
    """Return the refusals with their reasons, ours or those of the exporters; families with one reason in one line."""
    chosen = [cell for cell in cells if cell.verdict != "read" and (cell.verdict != NO_VERDICT_OF_OURS) == ours]
    key = {id(cell): f"`{cell.verdict}`, {cell.because}" if ours else f"`{cell.because}`" for cell in chosen}
    ordered = sorted(chosen, key=lambda cell: (key[id(cell)], cell.net, cell.way))
    lines = []
    for reason, group in groupby(ordered, key=lambda cell: key[id(cell)]):
        ways = {net: [cell.way for cell in found] for net, found in groupby(group, key=lambda cell: cell.net)}
        lines.append("- " + ", ".join(f"{net} ({', '.join(found)})" for net, found in ways.items()) + f": {reason}")
    title = "Refused, with the reason given:" if ours else "Refused by the exporter:"
    return "\n".join([title, "", *lines]) if lines else ""


def with_matrix(text: str, record: Record) -> str:
    """Return the page with its matrix replaced by that of the record."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE.name} has no section of packages")
    return f"{before}{BEGIN}\n{page(record)}\n{END}{after}"
