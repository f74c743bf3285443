"""Who a role works with: the relationships of an application, resolved for one of its roles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from rolecall.core.errors import ConfigError
from rolecall.core.patterns import is_pattern, matches, select
from rolecall.core.topologies import neighbours
from rolecall.fleet.app import Alias, App, Later, Target, Topology

__all__ = ("NATIVE_ROLE", "holders", "members", "relationships_of", "strength")

NATIVE_ROLE = "node"
"""The name of the role that every node carries."""


def holders(key: str, roles: Iterable[str]) -> list[str]:
    """Return the roles that have the relationships under a key, which names roles or whole nodes."""
    if "/" in key:
        return select(key, roles)
    return select(f"{key}/*", roles)


def relationships_of(app: App, role: str) -> dict[str, tuple[str, Target]]:
    """Return the relationships of a role by name, each with the key it is written under.

    What is written for the role is stronger than what is written for its node, and a name than a pattern.
    """
    found: dict[str, tuple[str, Target]] = {}
    for key in sorted(app.relationships, key=strength):
        if matches(key if "/" in key else f"{key}/*", role):
            found.update({name: (key, target) for name, target in app.relationships[key].items()})
    return found


def strength(key: str) -> tuple[bool, bool]:
    """Return what a key is sorted by: the strongest last."""
    return "/" in key, not is_pattern(key)


def members(app: App, role: str, name: str, roles: Sequence[str]) -> list[str] | None:
    """Return the roles in the relationship `name` of `role`, among all `roles`; None where it is not configured.

    They come in natural order; those of a list in the order of the list. Members of a topology are the
    neighbours of `role`, or, where that is none of its roles, of the only one on the same node. The roles of the
    nodes themselves (`client1/node`) need not be among `roles`. Raises `ConfigError` for a topology that cannot
    be made.
    """
    configured = relationships_of(app, role)
    seen = [name]
    while name in configured:
        target = configured[name][1]
        if not isinstance(target, Alias):
            return _resolved(target, role, tuple(roles), app.seed or 0)
        name = target.alias
        if name in seen:
            circle = " -> ".join((*seen, name))
            raise ConfigError(role, f"the relationships are aliases of each other in a circle: {circle}")
        seen.append(name)
    return None


def _resolved(target: Target, role: str, roles: tuple[str, ...], seed: int) -> list[str]:
    if isinstance(target, Topology):
        return _neighbours(target, role, roles, seed)
    if isinstance(target, Later):
        return list(_selected(target.later, roles))
    patterns = target if isinstance(target, list) else [str(target)]
    return list(dict.fromkeys(member for pattern in patterns for member in _selected(pattern, roles)))


@lru_cache(maxsize=256)
def _selected(pattern: str, roles: tuple[str, ...]) -> tuple[str, ...]:
    if pattern.endswith(f"/{NATIVE_ROLE}"):
        natives = {f"{role.partition('/')[0]}/{NATIVE_ROLE}" for role in roles}
        return tuple(select(pattern, natives))
    return tuple(select(pattern, roles))


def _neighbours(target: Topology, role: str, roles: tuple[str, ...], seed: int) -> list[str]:
    of = _selected(target.of, roles)
    graph = neighbours(target.topology, of, seed)
    if role in graph:
        return graph[role]
    beside = [member for member in of if member.partition("/")[0] == role.partition("/")[0]]
    if len(beside) != 1:
        raise ConfigError(
            role,
            f"it is none of the roles {target.of}, which make up the topology {target.topology!r}, and "
            f"{'none' if not beside else 'more than one'} of them is on its node",
            hint="Give the relationship to those roles themselves, with a key such as client*/gossip",
        )
    return graph[beside[0]]
