"""JSON Schemas as callers see them, derived from the options classes.

The field `name` of an options class holds the name of its method or memory and selects the class that validates the
options. Callers give this name in `method` and `memory`, so the published schemas leave the field out.
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
    """Return the schema of one options class. `needs` lists the properties that its method needs of the teacher."""
    return {**_without_tag(cls.model_json_schema()), "needs": sorted(getattr(cls, "needs", ()))}


def spec_schema() -> Schema:
    """Return the schema of the spec, with all definitions that it refers to."""
    schema = JobSpec.model_json_schema()
    untag(schema["$defs"])
    return schema


def untag(definitions: Schema) -> None:
    """Remove the field `name` from the options classes, and the selection by this field from `DistillConfig`."""
    for cls in (*METHODS.values(), *MEMORIES.values()):
        if cls.__name__ in definitions:
            definitions[cls.__name__] = _without_tag(definitions[cls.__name__])
    for role in ("method_options", "memory_options"):
        choice = definitions["DistillConfig"]["properties"][role]
        if choice.pop("discriminator", None) is not None:
            choice["anyOf"] = choice.pop("oneOf")  # without the field, {} is valid for several classes


def _without_tag(schema: Schema) -> Schema:
    properties = {name: value for name, value in schema.get("properties", {}).items() if name != _TAG}
    return {**schema, "properties": properties}
