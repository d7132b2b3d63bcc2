"""Presets (torch-free): the settings that hold unless a request sets other ones."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from dfkd_core.options.base import ReplayOptions, SynthesisOptions
from dfkd_core.options.published import Presets, Settings, merged
from dfkd_core.options.registry import MEMORIES, METHODS


def over_preset(value: dict[str, Any], *, method: str, memory: str) -> dict[str, Any]:
    """Merge `value`, a distillation as JSON, over its preset. `method` and `memory` are the defaults.

    If the request names another memory than the preset, the preset's settings of its memory are left out.
    """
    method, preset = value.get("method", method), value.get("preset", "default")
    if not (isinstance(method, str) and isinstance(preset, str)):
        return value
    settings = dict(_settings(method, METHODS.get(method, SynthesisOptions).presets, preset))
    usual = settings.get("memory", memory)
    asked = value.get("memory", usual)
    if asked != usual:
        own = MEMORIES.get(asked, ReplayOptions).presets if isinstance(asked, str) else {}
        settings["memory_options"] = _settings(asked, own, preset)
    return merged(settings, value)


def _settings(name: Any, presets: Presets, preset: str) -> Settings:
    """Return the settings that `preset` changes. "paper-reconstructed" falls back to "paper", if that was published in
    full.

    Raises:
        ValidationError: the preset is "paper", but the published settings are incomplete.
    """
    if preset == "paper" and "paper-reconstructed" in presets:
        wrong = PydanticCustomError(
            "preset_reconstructed",
            'the published settings of {name} could not be read in full; ask for "paper-reconstructed"',
            {"name": name},
        )
        line = InitErrorDetails(type=wrong, loc=("preset",), input=preset)
        raise ValidationError.from_exception_data("DistillConfig", [line])
    if preset == "paper-reconstructed" and preset not in presets:
        return presets.get("paper", {})
    return presets.get(preset, {})
