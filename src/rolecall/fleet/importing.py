"""From names to Python objects and back: `module:QualName`."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import types
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rolecall.core.errors import ConfigError, nearest
from rolecall.core.factories import factories

__all__ = ("NotFound", "described", "find", "home_of", "load", "reference", "require_no_import", "search_in")

_imported: ContextVar[str | None] = ContextVar("rolecall_imported", default=None)


class NotFound(Exception):
    """Raised by `find`: why a name leads to nothing, and what to do."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem, self.hint = problem, hint


def reference(value: Any) -> str | None:
    """Return the name under which a class or function can be imported again, or nothing when it cannot.

    What was defined in the script that is run has the name under which others import that script; what was defined
    in a notebook or inside a function has none.
    """
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        return None
    try:
        found = _attribute(sys.modules[module], qualname)
    except (KeyError, AttributeError):
        return None
    if found is not value:
        return None
    name = _script() if module == "__main__" else module
    return f"{name}:{qualname}" if name is not None else None


def _script() -> str | None:
    """Return the name under which the script that is run can be imported, or nothing."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:  # python -m package.module
        return main.__spec__.name
    file = getattr(main, "__file__", None)
    if file is None:
        return None
    try:
        spec = importlib.util.find_spec(Path(file).stem)
    except (ImportError, ValueError):
        return None
    return spec.name if spec is not None and spec.origin is not None and Path(spec.origin).samefile(file) else None


def home_of(file: Path) -> tuple[Path, str]:
    """Return the directory that a module's file is imported from, and the module's name there.

    A file in a package belongs to that package: it is imported from above it.
    """
    directory, name = file.resolve().parent, file.stem
    while (directory / "__init__.py").is_file():
        directory, name = directory.parent, f"{directory.name}.{name}"
    return directory, name


def search_in(directories: Sequence[str]) -> None:
    """Let modules be imported from these directories first, as a script's own directory is."""
    for directory in reversed(directories):
        if directory not in sys.path:
            sys.path.insert(0, directory)


def load(name: Any, where: str, search: Sequence[str] = (), *, form: str = "module:name") -> Any:
    """Return the object of a name, as `find` does.

    Raises:
        ConfigError: it leads to nothing; `where` (file, line and key) begins the message.
    """
    try:
        return find(name, search, form=form)
    except NotFound as error:
        raise ConfigError(where, error.problem, hint=error.hint) from error.__cause__


def find(name: Any, search: Sequence[str] = (), *, form: str = "module:name") -> Any:
    """Return the object of a name; an object that is there already is returned as it is.

    Args:
        name: `module:QualName`, the name of a registered factory, or the object.
        search: directories in which modules are looked up first.
        form: how the name should be written, for the message.

    Raises:
        NotFound: there is no such module or no such name in it, or the module fails when it is imported.
    """
    if not isinstance(name, str):
        return name
    module_name, colon, qualname = name.partition(":")
    if not colon and name in factories():
        return factories()[name]
    if not module_name or not qualname:
        head, _, tail = name.rpartition(".")
        hint = f"Did you mean {head}:{tail}?" if head and not colon else nearest(name, factories())
        raise NotFound(f"found {name!r}, expected {form}", hint)
    search_in(search)
    module = _module(module_name, search)
    try:
        return _attribute(module, qualname)
    except AttributeError:
        own = _own_names(module)
        hint = nearest(qualname, own) or f"It has {', '.join(own[:12]) or 'nothing'}"
        raise NotFound(f"the module {module_name} has no {qualname!r}", hint) from None


def _attribute(module: types.ModuleType, qualname: str) -> Any:
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def require_no_import() -> None:
    """Raise `ConfigError` in a module that is just being imported for an application."""
    name = _imported.get()
    if name is not None:
        raise ConfigError(
            f"module {name}", "it starts a run when it is imported, as nodes do",
            hint='Put what a script does under `if __name__ == "__main__":`',
        )  # fmt: skip


def _module(name: str, search: Sequence[str]) -> types.ModuleType:
    before = _imported.set(name)
    try:
        module = importlib.import_module(name)
    except ConfigError as error:
        raise NotFound(str(error)) from None
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise NotFound(f"there is no module {error.name}", _similar(error.name, search)) from None
        raise NotFound(f"the module {name} needs {error.name}, which is not installed") from error
    except Exception as error:
        raise NotFound(f"importing the module {name} failed: {described(error)}") from error
    finally:
        _imported.reset(before)
    _check_origin(module, search)
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


def _check_origin(module: types.ModuleType, search: Sequence[str]) -> None:
    """Refuse a module of the same name that came from the directory of another application."""
    name, loaded = module.__name__.partition(".")[0], getattr(module, "__file__", None)
    for directory in search:
        for candidate in (Path(directory, f"{name}.py"), Path(directory, name, "__init__.py")):
            if loaded is not None and candidate.is_file():
                if candidate.resolve().parent not in Path(loaded).resolve().parents:
                    raise NotFound(
                        f"the module {name} was imported from {loaded}, and not from {candidate}",
                        "Rename one of them, or run the two applications in processes of their own",
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


def _own_names(module: types.ModuleType) -> list[str]:
    """Return the public names of what a module defines, without what it imports."""
    own = getattr(module, "__all__", None)
    if own is not None:
        return sorted(own)
    there = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return sorted(name for name, value in there.items() if getattr(value, "__module__", None) == module.__name__)
