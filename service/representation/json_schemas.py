"""JSON Schemas as callers see them, read off the menu classes.

Inside, an options class carries the name of its method or memory, so that the right class validates. Outside there is
no such field: `method` and `memory` are the names, so the schemas that leave do not show it.
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
    """Take the names out of the options classes, and the choice by name out of `DistillConfig`."""
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
