"""What is wrong with a spec, in words (torch-free): known names near to an unknown one, and the keys of the same place.

An explanation repeats nothing that the caller sent; it names only what is known.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

NEAR = 0.6  # least similarity of a suggestion, from 0 to 1
MAX_PLACES = 2  # other places of the spec that a suggestion names

Model = type[BaseModel]
_KEEPS_ZERO_OUT = re.compile(r"greater than or equal to (0\.0{8,}1|1e-\d\d)$")


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name nearest to `name`, whatever the case and the separators; None if none is near."""
    if not isinstance(name, str) or len(name) > 100:
        return None
    plain = {_plain(one): one for one in known}
    found = get_close_matches(_plain(name), plain, n=1, cutoff=NEAR)
    return plain[found[0]] if found else None


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return the end of a sentence that suggests a known name; empty if none is near."""
    found = nearest(name, known)
    return "" if found is None else f"; did you mean {found}?"


def explained(error: ErrorDetails, model: Model) -> str:
    """Return the text for one error of pydantic about a document that should be a `model`, without the value."""
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(tuple(error["loc"]), model)
        case "missing":
            return "required"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be an object{_example(tuple(error['loc']), model)}"
        case "value_error" | "assertion_error":
            return str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
        case "literal_error":
            known = re.findall(r"'([^']+)'", str(error["msg"]))
            return f"must be one of {', '.join(known)}{did_you_mean(error.get('input'), known)}"
    return _in_other_words(str(error["msg"]))


def _in_other_words(text: str) -> str:
    text = re.sub(r"^[A-Z][a-z]+ should ", "must ", text).replace(" after validation", "")
    return _KEEPS_ZERO_OUT.sub("greater than 0", text)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _unknown_key(location: Sequence[str | int], model: Model) -> str:
    place = _model_at(location[:-1], model)
    if place is None:
        return "unknown key"
    siblings, key = list(place.model_fields), str(location[-1])
    suggestion = did_you_mean(key, siblings)
    elsewhere = [path for path in field_paths(model) if path.rpartition(".")[2] == key][:MAX_PLACES]
    if not suggestion:
        suggestion = f"; there is {' and '.join(elsewhere)}." if elsewhere else "."
    return f"unknown key{suggestion} Known here: {', '.join(siblings)}"


def _example(location: Sequence[str | int], model: Model) -> str:
    """Return an example of an object with one key, where one key is required."""
    place = _model_at(location, model)
    required = [name for name, field in place.model_fields.items() if field.is_required()] if place else []
    return f', such as {{"{required[0]}": …}}' if len(required) == 1 else ""


def _model_at(location: Sequence[str | int], model: Model) -> Model | None:
    """Return the model of the object at a location of pydantic, in which a tag names one of several models."""
    place, several = model, dict[str, Model]()
    for step in location:
        if several:
            if step not in several:
                return None
            place, several = several[str(step)], {}
            continue
        field = place.model_fields.get(str(step))
        inner = [] if field is None else _models(field.annotation)
        if not inner:
            return None
        if len(inner) == 1:
            place = inner[0]
        else:
            several = {get_args(one.model_fields["name"].annotation)[0]: one for one in inner}
    return None if several else place


def _models(annotation: Any) -> list[Model]:
    """Return the models in an annotation such as `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def field_paths(model: Model, prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths of all keys, those of methods and memories left out."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        inner = _models(field.annotation)
        if len(inner) == 1:
            yield from field_paths(inner[0], f"{prefix}{name}.")
