"""Provenance (torch-free): the digest of everything that goes into a student, and how anybody computes it again.

    python -m dfkd_core.output.provenance report.json --teacher teacher.onnx

says for each input of a report whether what lies here has the digest that the report states.
"""

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dfkd_core.report import FileFacts, InputFacts, InputName

PACKAGES = ("numpy", "safetensors", "onnxscript", "scipy")
"""What computes beside the packages that `Versions` names."""

_SOURCES = Path(__file__).resolve().parents[1]


def inputs(teacher: FileFacts, spec: Mapping[str, Any], checkpoint: FileFacts | None) -> list[InputFacts]:
    """Return the facts of everything that goes into a run; a run reads nothing else."""
    found: dict[InputName, FileFacts] = {"teacher": teacher, "spec": spec_facts(spec), "code": code_facts()}
    if checkpoint is not None:
        found["checkpoint"] = checkpoint
    return [InputFacts(name=name, **facts.model_dump()) for name, facts in found.items()]


def spec_facts(spec: Mapping[str, Any]) -> FileFacts:
    """Digest of a spec as JSON with sorted keys, without spaces, in ASCII."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    return FileFacts(sha256=hashlib.sha256(text).hexdigest(), bytes=len(text))


def code_facts() -> FileFacts:
    """Digest of this package: of the lines `sha256  path` of its Python files, in the order of their paths."""
    digest, size = hashlib.sha256(), 0
    for path in sorted(_SOURCES.rglob("*.py"), key=lambda path: path.relative_to(_SOURCES).as_posix()):
        source = path.read_bytes()
        line = f"{hashlib.sha256(source).hexdigest()}  {path.relative_to(_SOURCES).as_posix()}\n"
        digest.update(line.encode())
        size += len(source)
    return FileFacts(sha256=digest.hexdigest(), bytes=size)


def file_facts(path: Path) -> FileFacts:
    """Digest and size of a file."""
    with path.open("rb") as file:
        return FileFacts(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


def packages() -> dict[str, str]:
    """Versions of `PACKAGES`, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """Model name of the processor, as the operating system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main(arguments: list[str] | None = None) -> int:
    """Check a report against what lies here; the exit status is 1 where something differs."""
    parser = argparse.ArgumentParser(prog="python -m dfkd_core.output.provenance", description=main.__doc__)
    parser.add_argument("report", type=Path, help="report.json of a job")
    parser.add_argument("--teacher", type=Path, help="the file that was uploaded")
    options = parser.parse_args(arguments)
    report = json.loads(options.report.read_text(encoding="utf-8"))
    here = {"spec": spec_facts(report["spec"]), "code": code_facts()}
    here |= {"teacher": file_facts(options.teacher)} if options.teacher else {}
    differs = False
    for stated in report["inputs"]:
        name, known = stated["name"], here.get(stated["name"])
        verdict = "not checked" if known is None else "the same" if known.sha256 == stated["sha256"] else "another"
        differs |= verdict == "another"
        sys.stdout.write(f"{name:10}  {stated['sha256']}  {stated['bytes']:>10} bytes  {verdict}\n")
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
