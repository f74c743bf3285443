"""From names to Python objects and back: `module:QualName`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rolecall.core.errors import ConfigError, nearest
from rolecall.core.factories import factories

__all__ = ("described", "load", "reference", "search_in")


def reference(value: Any) -> str | None:
    """Return the name under which a class or function can be imported again, or nothing when it cannot.

    What was defined in `__main__` or inside a function has no such name.
    """
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or module == "__main__":
        return None
    try:
        found = _attribute(sys.modules[module], qualname)
    except (KeyError, AttributeError):
        return None
    return f"{module}:{qualname}" if found is value else None


def search_in(directories: Sequence[str]) -> None:
    """Let modules be imported from these directories first, as a script's own directory is."""
    for directory in reversed(directories):
        if directory not in sys.path:
            sys.path.insert(0, directory)


def load(name: Any, where: str, search: Sequence[str] = (), *, form: str = "module:name") -> Any:
    """Return the object of a name; an object that is there already is returned as it is.

    Args:
        name: `module:QualName`, the name of a registered factory, or the object.
        where: what a message begins with: file, line and key.
        search: directories in which modules are looked up first.

    Raises:
        ConfigError: there is no such module or no such name in it, or the module fails when it is imported.
    """
    if not isinstance(name, str):
        return name
    module_name, colon, qualname = name.partition(":")
    if not colon and name in factories():
        return factories()[name]
    if not colon or not module_name or not qualname:
        head, _, tail = name.rpartition(".")
        hint = f"Did you mean {head}:{tail}?" if head and not colon else nearest(name, factories())
        raise ConfigError(where, f"found {name!r}, expected {form}", hint=hint)
    search_in(search)
    module = _module(module_name, where, search)
    try:
        return _attribute(module, qualname)
    except AttributeError:
        hint = nearest(qualname, _public(module)) or f"It has: {', '.join(_public(module)[:12]) or 'nothing'}"
        raise ConfigError(where, f"the module {module_name} has no {qualname!r}", hint=hint) from None


def _attribute(module: types.ModuleType, qualname: str) -> Any:
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _module(name: str, where: str, search: Sequence[str]) -> types.ModuleType:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                where, f"there is no module {error.name}", hint=_similar(error.name, search)
            ) from None
        raise ConfigError(where, f"the module {name} needs {error.name}, which is not installed") from error
    except Exception as error:
        raise ConfigError(where, f"importing the module {name} failed: {described(error)}") from error
    _check_origin(module, where, search)
    return module


def described(error: Exception) -> str:
    """Return an error of a module that was imported, with the last line that it passed through."""
    place = ""
    step = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if "importlib" not in file and file != __file__:
            place = f" ({file}:{step.tb_lineno})"
        step = step.tb_next
    return f"{type(error).__name__}: {error}{place}"


def _check_origin(module: types.ModuleType, where: str, search: Sequence[str]) -> None:
    """Refuse a module of the same name that came from the directory of another application."""
    name, loaded = module.__name__.partition(".")[0], getattr(module, "__file__", None)
    for directory in search:
        for candidate in (Path(directory, f"{name}.py"), Path(directory, name, "__init__.py")):
            if loaded is not None and candidate.is_file():
                if candidate.resolve().parent not in Path(loaded).resolve().parents:
                    raise ConfigError(
                        where,
                        f"the module {name} was imported from {loaded}, and not from {candidate}",
                        hint="Rename one of them, or run the two applications in processes of their own",
                    )
                return


def _similar(name: str, search: Sequence[str]) -> str:
    """Return the nearest module beside the missing one, and where was looked."""
    parent, _, last = name.rpartition(".")
    places = list(getattr(sys.modules.get(parent), "__path__", ())) if parent else [*search, "."]
    siblings = {found.name for found in pkgutil.iter_modules(places)} | (set() if parent else {"rolecall"})
    close = nearest(last, sorted(siblings))
    if close:
        return close.replace("'", f"'{parent}.", 1) if parent else close
    if parent:
        return f"In {parent} there are: {', '.join(sorted(siblings)[:12]) or 'no modules'}"
    return "Is it installed, or beside the application's file?"


def _public(module: types.ModuleType) -> list[str]:
    return sorted(name for name in vars(module) if not name.startswith("_"))
