"""The registry of methods and memories (torch-free): every file in `options/methods/` and `options/memories/` is one.

A file declares one options class: its fields, its presets and what it needs. Validation, JSON schemas, `GET /menu` and
the command line follow from these classes; nothing else lists them.
"""

import pkgutil
from collections.abc import Mapping
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from operator import or_
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field

from dfkd_core.options import memories, methods
from dfkd_core.options.base import ReplayOptions, SynthesisOptions

PresetName = Literal["default", "paper", "paper-reconstructed"]

T = TypeVar("T")
OptionsT = TypeVar("OptionsT", bound=BaseModel)


def only_class(module: ModuleType, base: type[T]) -> type[T]:
    """Return the one subclass of `base` that `module` defines.

    Raises:
        TypeError: the module defines none or several.
    """
    found: list[type[T]] = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define one subclass of {base.__name__}, not {len(found)}")
    return found[0]


def _discovered(package: ModuleType, base: type[OptionsT]) -> Mapping[str, type[OptionsT]]:
    """Return the options class in each module of `package`, by the module's name, in alphabetical order.

    Raises:
        TypeError: a module defines none or several, or a class whose `name` is not that of its module.
    """
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__))
    classes = {name: only_class(import_module(f"{package.__name__}.{name}"), base) for name in names}
    for name, options in classes.items():
        if get_args(options.model_fields["name"].annotation) != (name,):
            raise TypeError(f'{options.__module__}: {options.__name__}.name must be Literal["{name}"], like its file')
    return classes


METHODS: Mapping[str, type[SynthesisOptions]] = _discovered(methods, SynthesisOptions)
MEMORIES: Mapping[str, type[ReplayOptions]] = _discovered(memories, ReplayOptions)


def implementation(options: SynthesisOptions | ReplayOptions, package: ModuleType, base: type[Any]) -> Any:
    """Return the callable that builds the method or memory of `options`; it takes (options, teacher, *, streams,
    device).

    The callable is the subclass of `base` in the module of `package` that has the name of the options' module. If there
    is no such module, `options.implementation` names the callable. The type is `Any`, because each callable takes
    another class of options.

    Raises:
        TypeError: there is neither such a module nor an `implementation`.
    """
    module = f"{package.__name__}.{type(options).__module__.rpartition('.')[2]}"
    if find_spec(module) is not None:
        return only_class(import_module(module), base)
    if not options.implementation:
        raise TypeError(f"{type(options).__name__} needs {module} or an `implementation`")
    place, _, attribute = options.implementation.partition(":")
    return getattr(import_module(place), attribute)


if TYPE_CHECKING:  # a type checker sees the common base; at run time pydantic sees every name and every class
    MethodName = str
    MemoryName = str
    MethodOrAuto = str
    MethodOptions = SynthesisOptions
    MemoryOptions = ReplayOptions
else:
    MethodName = Literal[tuple(METHODS)]
    MemoryName = Literal[tuple(MEMORIES)]
    MethodOrAuto = Literal["auto", *METHODS]
    MethodOptions = Annotated[reduce(or_, METHODS.values()), Field(discriminator="name")]
    MemoryOptions = Annotated[reduce(or_, MEMORIES.values()), Field(discriminator="name")]
