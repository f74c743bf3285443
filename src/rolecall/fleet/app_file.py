"""Application files: read with their includes, and written.

An application is a YAML file (`include: [base.yaml]` merges others below it), or a Python file with a
variable `app`; a directory stands for the `app.yaml` or `app.py` in it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from rolecall.core.errors import ConfigError, nearest
from rolecall.core.whole_files import write_whole
from rolecall.fleet import importing, yaml_tree
from rolecall.fleet.app import App
from rolecall.fleet.marks import KeyPath, Mark, Marks
from rolecall.fleet.shapes import app_of, shown, tree_of
from rolecall.fleet.values import plain

__all__ = ("load", "save", "written")

INCLUDES_LIMIT = 10  # how deep one file may include another
_SOURCES = ("class", "factory", "value")


def load(path: Path) -> App:
    """Return the application in a file; see `App.load`."""
    found = _found(path)
    if found.suffix == ".py":
        return _from_python(found)
    document = _read(found, ())
    return app_of(document.tree, Marks(str(found), document.places, str(found.resolve().parent)))


def _found(path: Path) -> Path:
    """Return the file that is meant, in a directory or by itself."""
    names = ("app.yaml", "app.yml", "app.py")
    if path.is_dir():
        inside = [path / name for name in names if (path / name).is_file()]
        if not inside:
            raise ConfigError(str(path), f"this directory has no application in it ({', '.join(names)})")
        return inside[0]
    if not path.is_file():
        beside = [str(path.with_name(name)) for name in _names_in(path.parent)]
        raise ConfigError(str(path), "there is no such file", hint=nearest(str(path), beside))
    if path.suffix not in (".yaml", ".yml", ".json", ".py"):
        raise ConfigError(str(path), f"found a {path.suffix or 'nameless'} file, expected .yaml or .py")
    return path


def _names_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.is_dir() else []


# ---------------------------------------------------------------------------------------------------- YAML


def _read(path: Path, chain: tuple[Path, ...]) -> yaml_tree.Document:
    """Return a file's tree, merged over those of the files it includes."""
    document = yaml_tree.read(_text(path), str(path))
    if not isinstance(document.tree, dict):
        raise ConfigError(str(path), f"found {shown(document.tree)}, expected a mapping with the key 'name'")
    include = document.tree.pop("include", None)
    marks = Marks(str(path), document.places)
    below = yaml_tree.Document({}, {})
    for index, name in enumerate(_included(include, marks)):
        key = ("include", index) if isinstance(include, list) else ("include",)
        below = _over(below, _read(_include(path, name, key, marks, chain), (*chain, path.resolve())))
    return _over(below, document)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > yaml_tree.BYTES_LIMIT:
            raise ConfigError(str(path), f"the file is larger than {yaml_tree.BYTES_LIMIT:,} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"the file cannot be read: {error}") from error


def _included(value: Any, marks: Marks) -> list[str]:
    names = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise marks.error(("include",), f"found {shown(value)}, expected a list of files")
    return names


def _include(path: Path, name: str, key: KeyPath, marks: Marks, chain: tuple[Path, ...]) -> Path:
    """Return the file that is included, unless that would go on for ever."""
    target = path.parent / name
    if not target.is_file():
        hint = nearest(name, _names_in(target.parent))
        raise marks.error(key, f"there is no file {target}", hint)
    circle = (*chain, path.resolve())
    if target.resolve() in circle:
        names = " -> ".join(file.name for file in (*circle[circle.index(target.resolve()) :], target.resolve()))
        raise marks.error(key, f"the files include each other in a circle: {names}")
    if len(circle) > INCLUDES_LIMIT:
        raise marks.error(key, f"the files include each other more than {INCLUDES_LIMIT} deep")
    return target


def _over(below: yaml_tree.Document, above: yaml_tree.Document) -> yaml_tree.Document:
    """Return a document merged over another, whose places stay for what comes from there."""
    places: dict[KeyPath, Mark] = {**below.places, **above.places}
    return yaml_tree.Document(merged(below.tree, above.tree), places)


def merged(below: Any, above: Any) -> Any:
    """Return `above` merged over `below`: mappings key by key, anything else replaced.

    Where `above` says in another way what an element or role is made of, the options below were not meant for
    it.
    """
    if not isinstance(below, dict) or not isinstance(above, dict) or _is_form(below) or _is_form(above):
        return above
    if any(name in above and above[name] != below.get(name) for name in _SOURCES):
        below = {key: value for key, value in below.items() if key not in (*_SOURCES, "options")}
    return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}


def _is_form(value: dict[Any, Any]) -> bool:
    return any(isinstance(key, str) and key.startswith("$") for key in value)


# -------------------------------------------------------------------------------------------------- Python


def _from_python(path: Path) -> App:
    module = _run(path)
    app = vars(module).get("app")
    if isinstance(app, App):
        if "marks" not in app.__dict__:
            app.__dict__["marks"] = Marks(str(path), directory=str(path.resolve().parent))
        return app
    others = [name for name, value in vars(module).items() if isinstance(value, App)]
    hint = f"It has {others[0]!r}: write `app = {others[0]}`" if others else "Write `app = rc.App(...)`"
    problem = "it has no variable 'app'" if app is None else f"`app` is {shown(app)}, expected an rc.App"
    raise ConfigError(str(path), problem, hint=hint)


def _run(path: Path) -> Any:
    """Import a file, under its own name where that is free: its classes are found again by it."""
    directory, name = importing.home_of(path)
    importing.search_in([str(directory)])
    try:
        spec = importlib.util.find_spec(name)
        free = spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path.resolve()
        return importlib.import_module(name) if free else _run_aside(path)
    except Exception as error:
        raise ConfigError(str(path), f"importing it failed: {importing.described(error)}") from error


def _run_aside(path: Path) -> Any:
    """Import a file whose name another module has, under a name that no other has."""
    name = f"{path.stem}_{hashlib.blake2b(str(path.resolve()).encode(), digest_size=4).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# ------------------------------------------------------------------------------------------------- writing


def save(app: App, path: Path) -> None:
    """Write an application; see `App.save`."""
    text = yaml_tree.dump(written(app))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [text.encode()])


def written(app: App) -> dict[str, Any]:
    """Return an application as the tree of its file, with a marker in the place of each live object."""
    tree = tree_of(app)
    for roles in tree.get("roles", {}).values():
        for spec in roles.values():
            _name_classes(spec)
    for preset in tree.get("presets", {}).values():
        _name_classes(preset)
    plainly: dict[str, Any] = _written(tree)
    return plainly


def _name_classes(spec: dict[str, Any]) -> None:
    """Replace classes and callables by their names, where these stand for themselves in the file."""
    for key in ("class", "factory", "initialize"):
        if key in spec:
            spec[key] = _name(spec[key])
    if "extensions" in spec:
        spec["extensions"] = [_name(extension) for extension in spec["extensions"]]
    if "value" in spec:
        spec["value"] = spec["value"] if _is_data(spec["value"]) else {"$live": _described(spec["value"])}
    for element in spec.get("elements", {}).values():
        _name_classes(element)


def _name(value: Any) -> Any:
    return value if isinstance(value, str) else importing.reference(value) or {"$live": _described(value)}


def _written(value: Any) -> Any:
    """Return a value as plain data, with a marker in the place of what has no written form."""
    value = plain(value)
    if isinstance(value, dict):
        return {_key(key): _written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_written(item) for item in value]
    simple = value is None or type(value) in (str, bool, int, float)
    return value if simple else {"$live": _described(value)}


def _key(key: Any) -> Any:
    return key if isinstance(key, (bool, int, float)) else str(key)


def _is_data(value: Any) -> bool:
    """Say whether a file gives the very same value back."""
    if type(value) is dict:
        return all(map(_is_data, (*value, *value.values())))
    if type(value) is list:
        return all(map(_is_data, value))
    return value is None or type(value) in (str, bool, int, float)


def _described(value: Any) -> str:
    """Return what a live object is, for the marker and the message that comes of it."""
    if isinstance(value, (list, tuple)) and value:
        return f"{type(value).__name__} of {type(value[0]).__name__}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{'class' if isinstance(value, type) else 'function'} {value.__qualname__}"
    return type(value).__name__
