"""Which relationships a role has: what is written for it, for its node, by name or by a pattern."""

from __future__ import annotations

from rolecall.core.patterns import is_pattern, matches
from rolecall.fleet.app import App, Target

__all__ = ("applies", "relationships_of", "strength")


def applies(key: str, role: str) -> bool:
    """Say whether a key of `relationships`, of roles or of whole nodes, stands for a role."""
    return matches(key if "/" in key else f"{key}/*", role)


def relationships_of(app: App, role: str) -> dict[str, tuple[str, Target]]:
    """Return the relationships of a role by name, each with the key it is written under.

    What is written for the role is stronger than what is written for its node, and a name than a pattern.
    """
    found: dict[str, tuple[str, Target]] = {}
    for key in sorted(app.relationships, key=strength):
        if applies(key, role):
            found.update({name: (key, target) for name, target in app.relationships[key].items()})
    return found


def strength(key: str) -> tuple[bool, bool]:
    """Return what keys of `relationships` are sorted by, the strongest last."""
    return "/" in key, not is_pattern(key)
