"""Which run or node of this machine a command means, and how to reach those of other machines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from rolecall.cli.access import Certs, SecretFile
from rolecall.core.errors import ConfigError, nearest
from rolecall.core.patterns import is_pattern, matches

if TYPE_CHECKING:
    from rolecall.fleet.client import Client
    from rolecall.fleet.records import Record

__all__ = ("At", "Place", "Places", "RunOption")

At: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="HOST:PORT",
        help="Where a node listens that is not of this machine; with --certs or --secret-file.",
    ),
]
RunOption: TypeAlias = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="Which run or node, as rolecall ps calls it, if it matters.")
]

_NOTHING = "Start one: rolecall run APP, or rolecall node NAME"


class Place:
    """Something that can be connected to: a run or node of this machine, or a node that listens somewhere."""

    def __init__(self, record: Record | None, at: str | None = None, certs: Certs = None, secret: SecretFile = None):
        self.record, self._at, self._certs, self._secret = record, at, certs, secret

    @property
    def id(self) -> str:
        """What it is called."""
        return self.record.id if self.record is not None else self._at or ""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        """Connect to it."""
        from rolecall.fleet.access import Access
        from rolecall.fleet.client import manage_by, manage_record

        if self.record is not None:
            async with manage_record(self.record) as client:
                yield client
        else:
            access = Access(certs=self._certs, secret_file=self._secret)
            async with manage_by(self._at or "", access) as client:
                yield client


class Places:
    """All that a command may mean: what `--at` says, or else what runs on this machine, as far as `--run` says."""

    def __init__(
        self, at: str | None = None, certs: Certs = None, secret_file: SecretFile = None, run: str | None = None
    ) -> None:
        self._remote = Place(None, at, certs, secret_file) if at is not None else None
        self._run = run
        self._options = {"--at": at, "--certs": certs, "--secret-file": secret_file, "--run": run}

    def options(self) -> list[str]:
        """Return the options of a command that say the same."""
        return [word for option, value in self._options.items() if value is not None for word in (option, str(value))]

    def all(self) -> list[Place]:
        """Return them; raise `ConfigError` where there is none of the name that `--run` says."""
        from rolecall.fleet.records import found

        if self._remote is not None:
            return [self._remote]
        records = found()
        if self._run is not None:
            records = _called(self._run, records)
        return [Place(record) for record in records]

    def some(self) -> list[Place]:
        """Return them; raise `ConfigError` where there is none."""
        places = self.all()
        if not places:
            raise ConfigError("this machine", "no run and no node can be found here", hint=_NOTHING)
        return places

    def of_node(self, node: str) -> Place:
        """Return where a node is looked after; a pattern of nodes must be all in one place.

        Raises:
            ConfigError: there is no such node, or there are several.
        """
        return self._only(f"node {node!r}", node, lambda record: record.nodes)

    def of_role(self, role: str) -> Place:
        """Return where a role is looked after, or all roles that a pattern matches; raises as `of_node` does."""
        home, slash, _ = role.partition("/")
        if not slash:
            raise ConfigError(f"role {role!r}", "roles are named NODE/ROLE, such as client1/trainer")
        return self._only(f"role {role!r}", home, lambda record: record.nodes)

    def called(self, name: str) -> Place | None:
        """Return the run or the node of this machine that has a name, None if there is none."""
        if self._remote is not None:
            return None
        places = self.all()
        found = [place for place in places if place.record is not None and name in _names(place.record)]
        return _single(name, found) if found else None

    def single(self) -> Place:
        """Return the only one there is; raise `ConfigError` where there is none, or several."""
        return _single("this machine", self.some())

    def _only(self, what: str, name: str, names: Callable[[Record], Iterable[str]]) -> Place:
        places = self.some()
        if self._remote is not None or self._run is not None:
            return _single(what, places)
        known = [(place, list(names(place.record))) for place in places if place.record is not None]
        found = [place for place, nodes in known if any(_same(name, node) for node in nodes)]
        own = [place for place in found if place.record is not None and place.record.kind == "node"]
        if not found:
            everywhere = list(dict.fromkeys(node for _, nodes in known for node in nodes))
            raise ConfigError(
                what, f"no node {name!r} can be found on this machine.{nearest(name, everywhere)}",
                hint=f"The nodes here: {', '.join(everywhere[:20])}; those elsewhere are reached with --at HOST:PORT",
            )  # fmt: skip
        return _single(what, own or found)


def _same(wanted: str, node: str) -> bool:
    return wanted == node or (is_pattern(wanted) and matches(wanted, node))


def _names(record: Record) -> tuple[str, ...]:
    return (record.id, record.name, str(record.pid))


def _called(name: str, records: Sequence[Record]) -> list[Record]:
    chosen = [record for record in records if name in _names(record)]
    if not chosen:
        ids = [record.id for record in records]
        hint = f"There are: {', '.join(ids)}" if ids else _NOTHING
        raise ConfigError("--run", f"nothing here is called {name!r}.{nearest(name, ids)}", hint=hint)
    return chosen


def _single(what: str, places: Sequence[Place]) -> Place:
    if len(places) > 1:
        ids = ", ".join(place.id for place in places)
        raise ConfigError(what, f"it could be any of {len(places)}: {ids}", hint="Say which with --run")
    return places[0]
