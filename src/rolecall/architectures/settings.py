"""What roles and builders say of a setting that cannot be."""

from __future__ import annotations

from rolecall.core.errors import ConfigError

__all__ = ("at_least_one",)


def at_least_one(who: str, **settings: int) -> None:
    """Raise `ConfigError`, which names `who` and the setting, for one below 1: nothing would be done."""
    for name, value in settings.items():
        if value < 1:
            raise ConfigError(who, f"{name} is {value}", hint="Give 1 or more")
