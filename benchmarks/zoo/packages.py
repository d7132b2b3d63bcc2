"""The packages whose nets are exported, and the environments in which they are: one for packages that go together."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMED_OUT = 124  # the status that `timeout` of the shell gives
LONGEST_SECONDS = 3 * 3600.0  # for the exports of one folder; a busy machine may need them


@dataclass(frozen=True)
class Package:
    """A package of nets: the module of this folder that exports them, and where it runs."""

    module: str
    environment: str
    requirements: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()  # of the process's environment

    def python(self, environments: Path) -> Path:
        """Return the interpreter of the environment, which is made where it is missing."""
        folder = environments / self.environment
        python = folder / "bin" / "python"
        if not python.exists():
            print(f"making the environment {folder}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *self.requirements]
            subprocess.run(pip, check=True)
        return python

    def exports(self, python: Path) -> dict[str, list[str]]:
        """Return the ways of each family that the exporter knows."""
        found = self._run(python, "--list", capture=True).stdout
        listed: dict[str, list[str]] = json.loads(found.splitlines()[-1])
        return listed

    def export(self, python: Path, folder: Path, families: list[str], way: str) -> int:
        """Export the families in one way into the folder; returns the exit status of the exporter's process.

        A process that takes longer than LONGEST_SECONDS is ended; what it has exported by then is read all the same.
        """
        try:
            return self._run(python, str(folder), "--families", *families, "--ways", way).returncode
        except subprocess.TimeoutExpired:
            return TIMED_OUT

    def versions(self, python: Path) -> dict[str, str]:
        """Return the versions of the packages that the environment was made of."""
        names = [re.split(r"[<>=!~\[]", requirement)[0] for requirement in self.requirements]
        program = "import json, sys; from importlib.metadata import version as v; "
        program += "print(json.dumps({name: v(name) for name in sys.argv[1:]}))"
        found = subprocess.run([python, "-c", program, *names], check=True, capture_output=True, text=True).stdout
        versions: dict[str, str] = json.loads(found)
        return versions

    def _run(self, python: Path, *arguments: str, capture: bool = False) -> "subprocess.CompletedProcess[str]":
        command = [python, "-m", f"benchmarks.zoo.{self.module}", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""} | dict(self.variables)
        if not capture:
            return subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                text=True,
                stderr=subprocess.DEVNULL,
                timeout=LONGEST_SECONDS,
                check=False,
            )
        return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=True)


_TORCH = ("torch>=2.10,<2.14", "torchvision==0.28.0", "timm", "transformers", "onnx", "onnxscript", "onnxruntime")
PACKAGES = {
    "transformers": Package("transformers_export", "torchfam", _TORCH),
    "timm": Package("timm_export", "torchfam", _TORCH),
    "torchvision": Package("torchvision_export", "torchfam", _TORCH),
    "keras": Package("keras_export", "keras", ("keras", "tensorflow-cpu", "tf2onnx", "onnx")),
    "keras-torch": Package(
        "keras_export",
        "keras_torch",
        ("torch>=2.10,<2.14", "keras", "onnx", "onnxscript"),
        (("KERAS_BACKEND", "torch"),),
    ),
    "scikit-learn": Package("sklearn_export", "sklearn", ("scikit-learn", "skl2onnx")),
    "paddle": Package("paddle_export", "paddle", ("paddlepaddle", "paddle2onnx", "packaging")),
}
