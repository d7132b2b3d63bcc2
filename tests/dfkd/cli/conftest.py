"""A fixture that runs `dfkd` in the process of the test, which is faster than starting a process for each command."""

import sys
from pathlib import Path

import pytest

from dfkd.cli import main
from tests.service.harness import ROOT


class Here:
    """Runs `dfkd` in a directory. The code of a network still runs in a process of its own, which `dfkd` starts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def run(self, place: Path, *words: str, **environment: str) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error, that of processes which were started too."""
        self._monkeypatch.chdir(place)
        self._monkeypatch.setattr(sys, "argv", ["dfkd", *words])
        for name, value in {"PYTHONPATH": str(ROOT), **environment}.items():
            self._monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = self._capfd.readouterr()
        return int(ended.value.code or 0), said.out, said.err


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    """Run `dfkd` in this process."""
    return Here(monkeypatch, capfd)
