"""Effort: the numbers of a run, its steps, images and batches, solved for the minutes that an effort takes.

Only what the caller leaves open is solved for. First the batches: they are halved until enough student updates fit
into the time. Then the steps, with the synthesizer's warm-up, until the nominal seconds of the run are those of the
effort. Everything follows from the spec and from facts of teacher, student and images.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dfkd_core.options.published import Settings, merged
from dfkd_core.planning.nominal import LEAST_AUDIT, LEAST_UPDATES, NOMINAL, nominal_seconds
from dfkd_core.planning.rounds import COSTLY_AUDIT
from dfkd_core.planning.speed import seconds_of
from dfkd_core.planning.work import RunFacts, work_of
from dfkd_core.spec.config import DistillConfig

Path = tuple[str, ...]

HALVINGS = 3  # of the batches, at most
BISECTIONS = 20  # of the logarithm of the scale
SCALES = (1 / 256, 256.0)  # of the usual number of steps
FEWEST_STEPS = 20
FEWEST_WARMUP_ROUNDS = 2
STEPS: Path = ("budget", "steps")
WARM_UP: Path = ("method_options", "warmup_rounds")


@dataclass(frozen=True, slots=True)
class Halved:
    """A number of the spec that becomes smaller for costly teachers."""

    path: Path
    floor: int  # it goes no lower; a number that is smaller to begin with stays
    power: int = 1  # 2: it is quartered where batches are halved


NUMBERS = (
    Halved(("training", "batch_size"), 32),
    Halved(("training", "replays_per_round"), 32),
    Halved(("method_options", "batch_size"), 32),
    Halved(("method_options", "steps"), 20),
    Halved(("memory_options", "batch_size"), 16),
    Halved(("procedural", "images_per_round"), 64, power=2),
    Halved(("procedural", "refinement", "images_per_round"), 16),
    Halved(("steadiness", "probe_size"), 256),
    Halved(("steadiness", "evaluations"), 10),
)
AUDIT: Path = ("steadiness", "audit_size")


def resolve_effort(config: DistillConfig, usual: DistillConfig, facts: RunFacts, *, asked: Settings) -> DistillConfig:
    """Return `config` with the numbers of its effort where `asked`, what the caller set, is silent.

    `usual` has the numbers of the same method and memory where nobody asks for anything. Published settings keep their
    numbers. If the caller gives the steps, the other numbers are those of a run of that length.
    """
    solver = _Solver(config, config.model_dump(mode="json"), usual.model_dump(mode="json"), facts, asked)
    if config.preset != "default" or not solver.has_free_numbers:
        return config
    return solver.config_at(*solver.solution())


@dataclass(frozen=True, slots=True)
class _Solver:
    """Finds halvings and scale; the scale is a number of steps, relative to the usual one."""

    config: DistillConfig
    given: dict[str, Any]  # `config` as JSON
    usual: Mapping[str, Any]  # JSON
    facts: RunFacts
    asked: Settings

    @property
    def has_free_numbers(self) -> bool:
        """True if the caller leaves any number open that an effort sets."""
        paths = (STEPS, WARM_UP, AUDIT, *(number.path for number in NUMBERS))
        return any(self._is_free(path) for path in paths)

    def solution(self) -> tuple[float, int]:
        """Return the scale that fills the time, or that of the caller's own steps, and the number of halvings.

        The halvings are the fewest at which enough updates fit into the time, whatever steps the caller gave.
        """
        enough, halvings = LEAST_UPDATES[self.config.budget.effort], 0
        scale = self._fitting_scale(halvings)
        while halvings < HALVINGS and self._steps_at(scale) < enough:
            halvings += 1
            scale = self._fitting_scale(halvings)
        if not self._is_free(STEPS):
            scale = self.config.budget.steps / int(_at(self.usual, STEPS))
        return scale, halvings

    def config_at(self, scale: float, halvings: int) -> DistillConfig:
        """Return the config with the numbers of a scale."""
        return self._with(self._numbers(scale, halvings))

    def _fitting_scale(self, halvings: int) -> float:
        """Return the largest scale whose nominal seconds are at most those of the effort."""
        seconds = nominal_seconds(self.config.budget.effort, self.facts)
        low, high = (math.log(scale) for scale in SCALES)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            changed = self._with({**self._numbers(math.exp(middle), halvings), STEPS: self._steps_at(math.exp(middle))})
            fits = seconds_of(work_of(changed, self.facts), NOMINAL) <= seconds
            low, high = (middle, high) if fits else (low, middle)
        return math.exp(low)

    def _numbers(self, scale: float, halvings: int) -> dict[Path, int]:
        """Return the free numbers at a scale, by path."""
        found = {
            number.path: _halved(int(_at(self.usual, number.path)), number, halvings)
            for number in NUMBERS
            if _at(self.usual, number.path) is not None
        }
        found |= {STEPS: self._steps_at(scale), WARM_UP: self._warmup_at(scale), AUDIT: self._audit_at(halvings)}
        return {path: value for path, value in found.items() if self._is_free(path)}

    def _steps_at(self, scale: float) -> int:
        return max(FEWEST_STEPS, _rounded(int(_at(self.usual, STEPS)) * scale))

    def _warmup_at(self, scale: float) -> int:
        """Return the warm-up's rounds: as many as the scale where all images are made in them, else by its root."""
        usual, options = int(_at(self.usual, WARM_UP)), self.config.method_options
        offline = self.config.steadiness.consolidation == 1
        factor = scale if offline else math.sqrt(scale)
        if not (offline or options.optimises_images):
            factor = min(1.0, factor)
        return max(min(usual, FEWEST_WARMUP_ROUNDS), round(usual * factor))

    def _audit_at(self, halvings: int) -> int:
        """Return the size of the audit set; where each image is optimised, missing ones cost as much as new ones."""
        usual, least = int(_at(self.usual, AUDIT)), LEAST_AUDIT[self.config.budget.effort]
        if halvings and self.config.method_options.optimises_images:
            usual = min(usual, COSTLY_AUDIT)
        return max(min(usual, least), usual >> halvings)

    def _is_free(self, path: Path) -> bool:
        return _at(self.asked, path) is None and _at(self.usual, path) is not None

    def _with(self, numbers: Mapping[Path, int]) -> DistillConfig:
        tree: dict[str, Any] = {}
        for path, value in numbers.items():
            branch: Any = value
            for key in reversed(path):
                branch = {key: branch}
            tree = merged(tree, branch)
        return DistillConfig.model_validate(merged(self.given, tree))


def _at(tree: Mapping[str, Any], path: Path) -> Any:  # Any: a value of JSON
    """Return the value at a path, or None."""
    found: Any = tree
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _halved(usual: int, number: Halved, halvings: int) -> int:
    return max(min(usual, number.floor), usual >> (halvings * number.power))


def _rounded(value: float) -> int:
    """Return the number with two significant digits, which is easier to read and to compare."""
    unit: int = 10 ** max(0, math.floor(math.log10(max(1.0, value))) - 1)
    return max(1, int(value / unit) * unit)
