"""Statements of the documentation that a machine can check."""

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

from jobs.metrics import REGISTRY
from jobs.settings import Settings
from jobs.store import Store
from service.middleware.metrics import LedgerCollector

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def writer_of(name: str) -> ModuleType:
    """The program docs/{name}.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_settings_table_is_what_the_settings_say() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    assert writer_of("settings_table").with_table(page) == page, "run `make docs`"


def test_the_table_of_codes_is_what_the_exception_classes_say() -> None:
    page = (ROOT / "docs/api.md").read_text()
    assert writer_of("error_table").with_table(page) == page, "run `make docs`"


def test_every_setting_says_in_one_sentence_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")] == []


def test_every_environment_name_in_the_pages_exists() -> None:
    known = {f"DFKD_{name.upper()}" for name in Settings.model_fields}
    code = sorted(path for room in ("dfkd", "benchmarks") for path in (ROOT / room).rglob("*.py"))
    for source in (ROOT / "docker-compose.yml", ROOT / ".env.example", *(ROOT / "containers").iterdir(), *code):
        if source.is_file():
            known |= set(re.findall(r"\bDFKD_[A-Z_]+[A-Z]", source.read_text()))
    mentioned = {name for page in PAGES for name in re.findall(r"\bDFKD_[A-Z_]+[A-Z]", page.read_text())}
    assert mentioned - known == set()


def test_every_metric_is_explained_and_every_explained_metric_is_told(store: Store) -> None:
    importlib.import_module("worker.metrics")  # its metrics join the registry
    page = (ROOT / "docs/operations.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `dfkd_") and line.count("|") > 2]
    explained = {name.removesuffix("_total") for row in rows for name in re.findall(r"`(dfkd_[a-z_]+)[`{]", row)}
    families = [*REGISTRY.collect(), *LedgerCollector(store.statistics(worker_seconds=60)).collect()]
    told = {family.name for family in families if not family.name.startswith("dfkd_process_")}
    assert explained == told
    mentioned = set(re.findall(r"\bdfkd_[a-z_]+[a-z]", page))
    assert {name.removesuffix("_total") for name in mentioned} - told - {"dfkd_process"} == set()


def prose(page: Path) -> str:
    """The text of a page without its code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", page.read_text())


def test_every_link_between_the_pages_leads_somewhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", prose(page))
        if not target.startswith(("http://", "https://", "mailto:")) and not (page.parent / target).exists()
    ]
    assert dead == []


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_anchor_between_the_pages_exists() -> None:
    dead = [
        f"{page.relative_to(ROOT)} -> {target}#{anchor}"
        for page in PAGES
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", prose(page))
        if anchor not in anchors((page.parent / target) if target else page)
    ]
    assert dead == []


def test_every_test_that_the_pages_name_exists() -> None:
    files = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [
        f"{page.relative_to(ROOT)} -> {file}::{test}"
        for page in PAGES
        for file, test in re.findall(r"`([\w/]*test_\w+\.py)(?:::(\w+))?", page.read_text())
        if not any(path.match(file) and f"def {test}" in text for path, text in files.items())
    ]
    assert missing == []


def test_every_path_of_the_code_that_the_pages_name_exists() -> None:
    folders = "dfkd|dfkd_core|jobs|service|worker|tests|benchmarks|deploy|examples|containers"
    missing = [
        f"{page.relative_to(ROOT)} -> {path}"
        for page in PAGES
        if page.name != "CHANGELOG.md"  # it names old paths too
        for path in re.findall(rf"`((?:{folders})/[\w/.-]*\w)", page.read_text())
        if "NAME" not in path and path != "dfkd/reaches-api" and not (ROOT / path).exists()
    ]
    assert missing == []


def test_every_module_that_the_pages_run_exists() -> None:
    named = {name for page in PAGES for name in re.findall(r"python -m ([\w.]+)", page.read_text())}
    ours = {name for name in named if (ROOT / name.partition(".")[0]).is_dir()}
    assert len(ours) > 10
    paths = {name: ROOT / name.replace(".", "/") for name in ours}
    missing = [
        n for n, path in paths.items() if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists()
    ]
    assert missing == []


def test_every_make_target_in_the_pages_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    mentioned = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)`", page.read_text())}
    assert mentioned - targets == set()


def test_a_decision_is_about_ten_lines() -> None:
    decisions = sorted(page for page in (ROOT / "docs/decisions").glob("*.md") if page.name != "README.md")
    assert decisions
    assert [page.name for page in decisions if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", page.name)] == []
    assert [page.name for page in decisions if page.read_text().count("\n") > 20] == []


def test_the_index_has_the_title_of_every_decision() -> None:
    index = (ROOT / "docs/decisions/README.md").read_text()
    decisions = [page for page in sorted((ROOT / "docs/decisions").glob("*.md")) if page.name != "README.md"]
    titles = {page: page.read_text().partition("\n")[0].removeprefix("# ") for page in decisions}
    expected = [f"| {page.name[:4]} | [{title}]({page.name}) | " for page, title in titles.items()]
    assert [line for line in expected if line not in index] == []
