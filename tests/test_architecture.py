"""The rules of docs/architecture.md: which package imports which, and which modules must not be loaded where."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
ROOMS = ("dfkd", "dfkd_core", "jobs", "service", "worker")
HEAVY = ("torch", "onnxruntime", "onnxscript", "onnx", "safetensors", "scipy")
TORCH_FREE_CORE = (
    "spec.config", "errors", "inspection.formats.detection", "progress", "architectures.layers", "architectures",
    "report", "inspection.child", "inspection.resolve", "options.registry", "sandbox.process_tuning", "sandbox.launch",
)  # fmt: skip


def loaded_by(*modules: str) -> set[str]:
    """Top-level names in `sys.modules` of a fresh interpreter that imported `modules`."""
    program = "import importlib, json, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    program += "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    answer = subprocess.run(
        [sys.executable, "-c", program, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert answer.returncode == 0, answer.stderr
    return set(json.loads(answer.stdout))


def modules_of(room: str) -> list[str]:
    """Dotted names of every module of a room, `__main__` files left out."""
    paths = sorted((ROOT / room).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def test_the_import_contracts_hold() -> None:
    answer = subprocess.run(
        [str(BIN / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("room", ["jobs", "service", "worker"])
def test_a_fresh_process_that_loads_a_whole_room_holds_no_heavy_library(room: str) -> None:
    """Among them service.app and worker.app; only the runner child may hold torch."""
    modules = [name for name in modules_of(room) if name != "worker.runner.main"]
    assert loaded_by(*modules).isdisjoint(HEAVY)


@pytest.mark.parametrize("modules", [["dfkd", "dfkd.client"], ["dfkd.cli.main"], modules_of("dfkd")])
def test_the_public_package_loads_no_other_room_and_no_library_of_the_server(modules: list[str]) -> None:
    """The third case is every module of `dfkd`: its commands import other rooms only inside functions."""
    loaded = loaded_by(*modules)
    assert loaded.isdisjoint({"dfkd_core", "jobs", "service", "worker"})
    assert loaded.isdisjoint({"sqlalchemy", "alembic", "celery", "fastapi", "starlette", "pydantic_settings", "numpy"})
    assert loaded.isdisjoint(HEAVY)


def test_the_client_is_loaded_when_it_is_first_named() -> None:
    program = "import sys, dfkd; assert 'httpx' not in sys.modules; assert dfkd.Client is dfkd.DfkdClient"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


def test_the_torch_free_face_of_the_science_loads_no_heavy_library() -> None:
    assert loaded_by("dfkd_core", *(f"dfkd_core.{name}" for name in TORCH_FREE_CORE)).isdisjoint(HEAVY)


def test_every_module_says_in_its_first_line_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if not path.read_text().lstrip().startswith(('"""', 'r"""'))
    ]
    assert silent == []


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "shared"}
    found = [path for room in ROOMS for path in (ROOT / room).rglob("*") if path.stem in drawers]
    assert found == []


def test_what_methods_share_imports_no_method() -> None:
    """Every method imports `methods/parts`, so an import the other way would be a circle of two folders."""
    parts = sorted((ROOT / "dfkd_core/methods/parts").glob("*.py"))
    assert len(parts) > 1
    assert [path.name for path in parts if re.search(r"dfkd_core\.methods(?!\.parts)", path.read_text())] == []
