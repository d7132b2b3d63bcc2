"""A network from the user's own code, which is imported and called here: the user's machine trusts it."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dfkd_core.errors import TeacherInvalid

_SHOWN = 12  # names of a module that an error lists


def network_from(source: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Run the code `package.module:name` or `folder/file.py:name`.

    Return the network that it is, or that it returns for `arguments`. What the code itself raises is passed on.

    Raises:
        TeacherInvalid: there is no such code, it needs other arguments, or it does not give a network.
    """
    place, _, name = source.rpartition(":")
    found: Any = _imported(place)
    for part in name.split("."):
        if not hasattr(found, part):
            raise TeacherInvalid(f"{source} cannot be imported: {place} has no {name}", hint=_networks_in(found))
        found = getattr(found, part)
    if not isinstance(found, nn.Module):
        found = _called(source, found, arguments)
    elif arguments:
        raise TeacherInvalid(f"{source} is a network already and takes no arguments", hint="Leave its arguments out.")
    if not isinstance(found, nn.Module):
        raise TeacherInvalid(f"{source} gives a {type(found).__name__}, not a torch.nn.Module")
    return found


def _imported(place: str) -> ModuleType:
    """Import a module by its name, looked for in the present folder too, or a file by its path.

    Raises:
        TeacherInvalid: it cannot be found, or imports something that cannot be found.
    """
    try:
        if not place.endswith(".py"):
            _look_in(Path.cwd())
            return importlib.import_module(place)
        return _imported_file(Path(place).resolve(strict=True))
    except FileNotFoundError as error:
        raise TeacherInvalid(f"there is no file {place}") from error
    except ImportError as error:
        raise TeacherInvalid(
            f"{place} cannot be imported: {error}",
            hint="Run this where your package lies, in the environment in which it works.",
        ) from error


def _imported_file(path: Path) -> ModuleType:
    """Import a Python file as Python would from the folder in which its outermost package lies."""
    folder, parts = path.parent, [path.stem]
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    _look_in(folder)
    if len(parts) > 1:
        return importlib.import_module(".".join(parts))
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_of_the_teacher"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as Python does; dataclasses and pickles look there
    spec.loader.exec_module(module)
    return module


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _networks_in(module: object) -> str | None:
    """Say which classes and functions a module defines that could give a network."""
    home = getattr(module, "__name__", None)
    found = [
        name
        for name, value in getattr(module, "__dict__", {}).items()
        if isinstance(value, nn.Module) or (callable(value) and getattr(value, "__module__", None) == home)
    ]
    return f"There: {', '.join(found[:_SHOWN])}." if found else None


def _called(source: str, function: Any, arguments: Mapping[str, Any]) -> Any:  # Any: the user's own objects
    """Call a class or function of the user, after a look at whether it takes these arguments.

    Raises:
        TeacherInvalid: it is nothing that can be called, or takes others.
    """
    if not callable(function):
        raise TeacherInvalid(f"{source} gives a {type(function).__name__}, not a torch.nn.Module")
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise TeacherInvalid(
            f"{source} takes other arguments: {error}",
            hint="Give each as --arg NAME=VALUE, for example --arg classes=10.",
        ) from error
    except ValueError:
        pass  # it does not say what it takes
    return function(**arguments)
