"""What `name=value` on a command line stands for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rolecall.core.errors import ConfigError

__all__ = ("arguments_of", "how_of", "pairs", "relationships_of", "role_of")


def pairs(texts: Sequence[str], where: str) -> dict[str, str]:
    """Return `name=value` texts as a mapping; raise `ConfigError` for one that is none, or comes twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(where, f"found {text!r}, expected NAME=VALUE")
        if name in found:
            raise ConfigError(where, f"{name!r} is given twice")
        found[name] = value
    return found


def arguments_of(texts: Sequence[str], as_json: str | None) -> dict[str, Any]:
    """Return the arguments of a call, given as `name=value` with YAML values, or as one JSON object."""
    if as_json is None:
        return _values(texts, "arguments")
    if texts:
        raise ConfigError("arguments", "they are given both as NAME=VALUE and with --json", hint="Choose one")
    try:
        found = json.loads(as_json)
    except ValueError as error:
        raise ConfigError("--json", f"this is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError("--json", "this is no object", hint="Write --json '{\"name\": value}'")
    return found


def role_of(class_: str, sets: Sequence[str], elements: Sequence[str]) -> dict[str, Any]:
    """Return a role as an application file has it."""
    if ":" not in class_:
        raise ConfigError(f"class {class_!r}", "a class is named module:QualName", hint="As in mine.roles:Prober")
    role: dict[str, Any] = {"class": class_}
    if sets:
        role["options"] = _values(sets, "--set")
    if elements:
        filled = _values(elements, "--element")
        role["elements"] = {slot: {"class": what} if isinstance(what, str) else what for slot, what in filled.items()}
    return role


def relationships_of(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return relationships, given as `name=role,role`."""
    return {
        name: [role.strip() for role in roles.split(",") if role.strip()]
        for name, roles in pairs(texts, "--relate").items()
    }


def how_of(roles: Sequence[str], *, add: bool, remove: bool, alias: str | None) -> str:
    """Return how a relationship is to change; raise `ConfigError` for what cannot be meant together."""
    if add and remove:
        raise ConfigError("relate", "it cannot --add and --remove the same roles", hint="Choose one")
    if alias is not None and (roles or add or remove):
        raise ConfigError("--alias", "it stands for another relationship, and names no roles itself")
    if (add or remove) and not roles:
        raise ConfigError("relate", "there are no roles to --add or --remove", hint="Name them, or patterns")
    return "add" if add else "remove" if remove else "replace"


def _values(texts: Sequence[str], where: str) -> dict[str, Any]:
    from rolecall.fleet.yaml_tree import read

    return {name: read(value, f"{where} {name}").tree for name, value in pairs(texts, where).items()}
