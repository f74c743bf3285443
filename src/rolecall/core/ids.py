"""Names: a role id is a permanent name; where the role runs is a separate matter."""

from __future__ import annotations

import re

__all__ = ("RoleId",)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}\Z")


class RoleId(str):
    """The name of a role instance, such as `client3/trainer`: its first node, and its name there."""

    __slots__ = ()

    @classmethod
    def of(cls, home: str, name: str) -> RoleId:
        """Return the id of role `name` created on node `home`; raise `ValueError` for an unusable name."""
        for part in (home, name):
            if not _NAME.match(part):
                raise ValueError(
                    f"{part!r} cannot name a node or a role: use up to 100 letters, digits, '_', '-' and '.'"
                )
        return cls(f"{home}/{name}")

    @property
    def home(self) -> str:
        """The node the role was created on (not necessarily where it runs now)."""
        return self.partition("/")[0]

    @property
    def name(self) -> str:
        """The role's name on its home node."""
        return self.partition("/")[2]

    def __repr__(self) -> str:
        return f"RoleId({str.__repr__(self)})"
