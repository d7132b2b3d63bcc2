"""The OpenAPI document holds: requests made from it, alone and in sequences, get only declared answers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.patience import PATIENCE
from tests.service.harness import Service, running_service

LEFT_OUT = "positive_data_acceptance"
"""The one check that cannot hold: random bytes are no teacher, random text is no cursor."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of its own: what is tried here stays in its ledger."""
    with running_service(tmp_path_factory.mktemp("openapi") / "data", DFKD_SWEEP_SECONDS="3600") as running:
        yield running


def strict_document(http: httpx.Client) -> dict[str, Any]:
    """The document without its `default` answers, which would excuse every refusal, and without keys: a service on
    loopback asks for none until there is one.
    """
    document: dict[str, Any] = http.get("/openapi.json").json()
    document.pop("security", None)
    document["components"].pop("securitySchemes", None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
            del operation["responses"]["default"]
    return document


def schemathesis(service: Service, directory: Path, *, seconds: int, examples: int) -> None:
    path = directory / "openapi.json"
    path.write_text(json.dumps(strict_document(service.http)))
    options = {"--url": service.url, "--seed": "20", "--exclude-checks": LEFT_OUT, "--warnings": "off"}
    options |= {"--max-time": str(seconds), "--max-examples": str(examples), "--request-timeout": str(PATIENCE)}
    options |= {"--suppress-health-check": "all"}
    words = [word for option in options.items() for word in option]
    # Its command in a process of its own: it keeps files, and our warnings are not its errors.
    command = [
        sys.executable,
        "-c",
        "from schemathesis.cli import schemathesis; schemathesis()",
        "run",
        str(path),
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory, timeout=3 * PATIENCE)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Stateful" in done.stdout
    assert service.http.get("/healthz").status_code == 200


def test_no_answer_is_undeclared(service: Service, tmp_path: Path) -> None:
    schemathesis(service, tmp_path, seconds=10, examples=4)


@pytest.mark.slow
def test_no_answer_is_undeclared_in_a_longer_run(service: Service, tmp_path: Path) -> None:
    schemathesis(service, tmp_path, seconds=240, examples=100)
