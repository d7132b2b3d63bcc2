"""How much a reader has to hold in mind: files in each folder, import floors, long functions, comments, files entered.

    python -m benchmarks.legibility --tree . --output benchmarks/results/legibility.json
    python -m benchmarks.legibility --tree . --trace --output benchmarks/results/legibility.json

The first command reads the sources only. `--trace` also runs the tree, with its own `.venv`, and counts the files whose
functions are entered by one `POST /jobs`, from the claim of a job to its publication, and by one student update.
`--tree` may be an older checkout, so that two states of the code can be compared with the same rules.
"""

import argparse
import ast
import json
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.file_traces import trace

ROOMS = ("dfkd", "dfkd_core", "jobs", "service", "worker")
LOOP_BEFORE = (
    *("distill", "rounds", "run", "schedule", "mixture", "checkpoint", "average", "ratchet", "probe", "scoring"),
    "collapse",
)
"""Files of the loop in a tree that has no folder `dfkd_core/loop`."""


@dataclass(frozen=True, slots=True)
class RoomFacts:
    """What is counted of one room. Migrations count as one folder of their own and in no other figure."""

    files_at_top: int
    largest_folder: str  # path and number of Python files, `__init__` and `__main__` left out
    files: int
    lines: int
    import_floors: int  # modules in the longest chain of imports inside the room
    folder_floors: int  # the same inside one folder, its subfolders left out; the deepest folder counts
    functions: int
    function_lines_p90: int


def main() -> None:
    """Measure one tree, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=Path(), help="root of a checkout")
    parser.add_argument("--trace", action="store_true", help="also run the tree and count the files entered")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    tree = options.tree.resolve()
    facts: dict[str, Any] = {"rooms": {room: asdict(measure_room(tree, room)) for room in rooms_of(tree)}}
    facts["comments_per_100_lines"] = {name: comments(files) for name, files in science_folders(tree).items()}
    if options.trace:
        entered = trace(tree)
        facts["files_entered"] = {what: len(files) for what, files in entered.items()}
        facts["entered"] = {what: sorted(files) for what, files in entered.items()}
    show(facts)
    if options.output:
        options.output.write_text(json.dumps(facts, indent=1) + "\n")


def rooms_of(tree: Path) -> list[str]:
    """Return the rooms that the tree has."""
    return [room for room in ROOMS if (tree / room / "__init__.py").is_file()]


def measure_room(tree: Path, room: str) -> RoomFacts:
    """Return the figures of one room."""
    files = sorted(path for path in (tree / room).rglob("*.py") if "migrations" not in path.parts)
    folders = Counter(path.parent for path in files if not path.stem.startswith("__"))
    folder, largest = max(folders.items(), key=lambda item: item[1])
    imports = {module: inside for path in files for module, inside in [module_imports(tree, path)]}
    lengths = sorted(length for path in files for length in function_lengths(path))
    return RoomFacts(
        files_at_top=folders[tree / room],
        largest_folder=f"{folder.relative_to(tree)} {largest}",
        files=len(files),
        lines=sum(path.read_text().count("\n") for path in files),
        import_floors=longest_chain(imports),
        folder_floors=max(longest_chain(part) for part in by_folder(imports)),
        functions=len(lengths),
        function_lines_p90=lengths[int(0.9 * len(lengths))],
    )


def module_imports(tree: Path, path: Path) -> tuple[str, set[str]]:
    """Dotted name of a file, and what it imports when it is loaded; imports inside functions do not count."""
    name = ".".join(path.relative_to(tree).with_suffix("").parts)
    found: set[str] = set()
    for node in statements_at_load(ast.parse(path.read_text()).body):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.update({node.module} | {f"{node.module}.{alias.name}" for alias in node.names})
    return name.removesuffix(".__init__"), found


def statements_at_load(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield all statements that run when a module is loaded; blocks under `if TYPE_CHECKING` are left out."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from statements_at_load(
                [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
            )


def by_folder(imports: Mapping[str, set[str]]) -> list[dict[str, set[str]]]:
    """Return the same imports, a mapping for each folder with the modules that lie directly in it."""
    packages = {name for name in imports if any(other.startswith(f"{name}.") for other in imports)}
    folders: dict[str, dict[str, set[str]]] = {}
    for name, inside in imports.items():
        folders.setdefault(name if name in packages else name.rpartition(".")[0], {})[name] = inside
    return list(folders.values())


def longest_chain(imports: Mapping[str, set[str]]) -> int:
    """Number of modules in the longest chain where each imports the next. A circle counts once."""
    on_the_way: set[str] = set()

    @cache
    def depth(name: str) -> int:
        if name in on_the_way:
            return 0
        on_the_way.add(name)
        below = max((depth(other) for other in sorted(imports[name]) if other in imports and other != name), default=0)
        on_the_way.discard(name)
        return 1 + below

    return max((depth(name) for name in sorted(imports)), default=0)


def function_lengths(path: Path) -> list[int]:
    """Lines of every function and method of a file, from `def` to the last statement."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return [node.end_lineno - node.lineno + 1 for node in nodes if node.end_lineno is not None]


def science_folders(tree: Path) -> dict[str, list[Path]]:
    """Files of the loop and of the methods."""
    core = tree / "dfkd_core"
    folder = sorted((core / "loop").rglob("*.py"))
    loop = folder or [core / f"{name}.py" for name in LOOP_BEFORE]
    return {"dfkd_core/loop": loop, "dfkd_core/methods": sorted((core / "methods").rglob("*.py"))}


def comments(files: list[Path]) -> dict[str, float]:
    """Lines with a comment, and lines of docstrings, for every 100 lines."""
    total = sum(path.read_text().count("\n") for path in files)
    with_comment = 0
    docstrings = 0
    for path in files:
        with path.open("rb") as file:
            tokens = tokenize.tokenize(file.readline)
            with_comment += len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                docstrings += (node.end_lineno or node.lineno) - node.lineno + 1
    return {"comments": round(100 * with_comment / total, 1), "docstrings": round(100 * docstrings / total, 1)}


def show(facts: Mapping[str, Any]) -> None:
    """Print the figures, a line for each room."""
    for room, figures in facts["rooms"].items():
        print(room.ljust(10), "  ".join(f"{name} {value}" for name, value in figures.items()))
    for name, value in facts["comments_per_100_lines"].items():
        print(name, value)
    for name, value in facts.get("files_entered", {}).items():
        print(f"files entered by {name}: {value}")


if __name__ == "__main__":
    sys.exit(main())
