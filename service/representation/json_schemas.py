"""JSON Schemas as callers see them, derived from the options classes.

An options class has a field with the name of its method or memory, which chooses the class that validates. Callers give
this name in `method` and `memory`, not in the options, so the published schemas leave the field out.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from dfkd_core.options import registry
from jobs.models import JobSpec

Schema = dict[str, Any]  # Any: JSON

_TAG = "name"


METHODS: Mapping[str, type[BaseModel]] = registry.METHODS
MEMORIES: Mapping[str, type[BaseModel]] = registry.MEMORIES


def options_schema(cls: type[BaseModel]) -> Schema:
    """The schema of one options class, with what it needs from the teacher."""
    return {**_without_tag(cls.model_json_schema()), "needs": sorted(getattr(cls, "needs", ()))}


def spec_schema() -> Schema:
    """The schema of the spec, self-contained."""
    schema = JobSpec.model_json_schema()
    untag(schema["$defs"])
    return schema


def untag(definitions: Schema) -> None:
    """Remove the field with the name from the options classes, and the choice by this field from `DistillConfig`."""
    for cls in (*METHODS.values(), *MEMORIES.values()):
        if cls.__name__ in definitions:
            definitions[cls.__name__] = _without_tag(definitions[cls.__name__])
    for role in ("method_options", "memory_options"):
        choice = definitions["DistillConfig"]["properties"][role]
        if choice.pop("discriminator", None) is not None:
            choice["anyOf"] = choice.pop("oneOf")  # {} fits all of them


def _without_tag(schema: Schema) -> Schema:
    properties = {name: value for name, value in schema.get("properties", {}).items() if name != _TAG}
    return {**schema, "properties": properties}
