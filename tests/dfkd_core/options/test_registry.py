"""A new method and a new memory are one file each: the menu, the spec and a run have them without another line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import dfkd_core
from tests.builders import onnx_teacher
from tests.patience import PATIENCE

SOURCES = Path(dfkd_core.__file__).parent

METHOD = '''"""BRIGHT. A generator whose images are made brighter (an example, in no paper)."""

from typing import ClassVar, Literal

from pydantic import Field

from dfkd_core.options.field_types import Weight
from dfkd_core.options.generators import OnehotWeight, TermOptions
from dfkd_core.options.published import Presets


class BrightOptions(TermOptions):
    """The usual terms, and brighter images."""

    presets: ClassVar[Presets] = {"default": {"memory": "newest"}}
    implementation: ClassVar[str] = f"{__name__}:build"

    name: Literal["bright"] = Field("bright", exclude=True)
    onehot_weight: OnehotWeight = 1.0
    lift: Weight = Field(0.25, description="Added to every pixel.")


def build(options, teacher, **given):
    from dfkd_core.methods.parts.generator_method import TermMethod

    class Bright(TermMethod):
        def sample(self, count, *, generator):
            return super().sample(count, generator=generator) + options.lift

    return Bright(options, teacher, **given)
'''

MEMORY = '''"""The newest batch, and nothing older (an example)."""

from typing import ClassVar, Literal

from pydantic import Field

from dfkd_core.options.base import ReplayOptions


class NewestOptions(ReplayOptions):
    """Replays the newest batch."""

    implementation: ClassVar[str] = f"{__name__}:build"

    name: Literal["newest"] = Field("newest", exclude=True)


def build(options, teacher, **given):
    from dfkd_core.memories.none import NoMemory

    class Newest(NoMemory):
        batch = None

        def remember(self, fresh):
            self.batch = fresh
            self.num_bytes = fresh.images.nbytes
            return {}

        def replay(self, count, *, generator):
            return self.batch

    return Newest(options, teacher, **given)
'''

USE = """
import sys
from pathlib import Path

import dfkd_core
from dfkd_core.spec.config import DistillSpec
from service.representation.json_schemas import MEMORIES, METHODS, options_schema, spec_schema

here = Path(sys.argv[1])
assert Path(dfkd_core.__file__).is_relative_to(here)
assert options_schema(METHODS["bright"])["properties"]["lift"]["default"] == 0.25
assert options_schema(MEMORIES["newest"])["properties"] == {}
config = spec_schema()["$defs"]["DistillConfig"]["properties"]
assert "bright" in config["method"]["enum"]
assert "newest" in config["memory"]["enum"]
spec = DistillSpec.model_validate({
    "teacher": {"input": {"shape": [1, 32, 32], "mean": [0.5], "std": [0.5]}},
    "student": {"architecture": "teacher", "width": 0.5},
    "distillation": {
        "method": "bright",
        "budget": {"steps": 8},
        "training": {"batch_size": 16, "updates_per_round": 4, "fresh_batches": 1, "replays_per_round": 16},
        "procedural": {"images_per_round": 64, "capacity": 200, "refinement": {"images_per_round": 8, "steps": 2}},
        "steadiness": {"probe_size": 32, "audit_size": 16, "evaluations": 2},
        "method_options": {"batch_size": 16, "width": 4, "latent_dim": 8, "warmup_rounds": 1, "lift": 0.5},
    },
})
assert spec.distillation.memory == "newest"
assert spec.distillation.method_options.lift == 0.5
assert "torch" not in sys.modules

from dfkd_core.pipeline import compress

outcome = compress(
    here / "teacher.onnx", spec, workspace=here / "work", threads=1, device="cpu", on_step=lambda _update: False
)
assert outcome.report.spec["distillation"]["method"] == "bright"
assert outcome.report.memory_bytes > 0
"""


def test_a_method_and_a_memory_of_one_file_each_are_on_the_menu_and_distil(tmp_path: Path) -> None:
    package = tmp_path / "dfkd_core"
    shutil.copytree(SOURCES, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "options" / "methods" / "bright.py").write_text(METHOD)
    (package / "options" / "memories" / "newest.py").write_text(MEMORY)
    (tmp_path / "teacher.onnx").write_bytes(onnx_teacher())
    path = os.pathsep.join([str(tmp_path), str(SOURCES.parent)])
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
