"""A world for the tests of the runtime: nodes that share a directory, on real loops or in virtual time.

`async with world(server="b/server") as w` opens one; leaving it shows that nothing of it is left behind: no
task, no exception that nobody saw.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Self, TypeVar

import pytest

import rolecall as rc
from rolecall.core.on_use import NONE_YET
from rolecall.core.records import DeadLetter, LogLine, Metric, StatusChange
from rolecall.runtime.directory import Directory
from rolecall.runtime.dispatcher import NO_QUEUE_YET
from rolecall.runtime.elements import ElementSource
from rolecall.runtime.instance import Hosting, RoleInstance
from rolecall.runtime.node import Node, NodeOptions
from rolecall.runtime.relations import Target

R = TypeVar("R", bound=rc.Role)

# ------------------------------------------------------------------------------------------------- loops


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on which nobody waits: with nothing to do, its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._really_select = self._selector.select
        self._selector.select = self._jump

    def time(self) -> float:
        return self._now_s

    def _jump(self, timeout: float | None = None) -> Any:
        if timeout is None:  # only a thread can go on
            return self._really_select(None)
        events = self._really_select(0)
        if not events:
            self._now_s += timeout
        return events


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "virtual_time: the test runs on a loop whose clock jumps")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]] | None:
    return {"virtual": VirtualLoop} if item.get_closest_marker("virtual_time") else None


# ------------------------------------------------------------------------------------------------- world


class World:
    """Nodes `a` and, where asked for, others; a relationship is the same on all of them, or given by node."""

    def __init__(
        self,
        *nodes: str,
        checked: bool = True,
        options: Mapping[str, Any] | None = None,
        **relationships: str | Mapping[str, str],
    ) -> None:
        self._names = nodes or ("a",)
        self._relationships = relationships
        self._settings = {"checked": checked, **(options or {})}
        self._stack = AsyncExitStack()
        self._directory = Directory()
        self._unseen: list[dict[str, Any]] = []
        self.nodes: dict[str, Node] = {}
        self.records: list[Any] = []

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda loop, context: self._unseen.append(context))
        self._before = asyncio.all_tasks()
        for name in self._names:
            node = Node(name, self._directory, self._options(name), [self.records.append])
            self.nodes[name] = await self._stack.enter_async_context(node)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)
        left = asyncio.all_tasks() - self._before
        gc.collect()
        await asyncio.sleep(0)
        if error[1] is None:
            assert not left, f"still running: {left}"
            assert not self._unseen, f"seen by nobody: {self._unseen}"

    def _options(self, node: str) -> NodeOptions:
        given = {k: v if isinstance(v, str) else v.get(node) for k, v in self._relationships.items()}
        targets = {name: Target((pattern,)) for name, pattern in given.items() if pattern is not None}
        return NodeOptions(relationships=targets, **self._settings)

    # ------------------------------------------------------------------------------------------ roles

    def hosted(
        self, id_: str, cls: type[rc.Role], elements: Mapping[str, ElementSource] | None = None, **options: Any
    ) -> RoleInstance:
        """Host a role without starting it."""
        role = rc.RoleId(id_)
        hosting = Hosting(id=role, role_class=cls, options=options, elements=elements or {})
        return self.nodes[role.home].host(hosting)

    async def role(self, id_: str, cls: type[R], **options: Any) -> R:
        """Host and start a role; return it."""
        instance = self.hosted(id_, cls, **options)
        await instance.start()
        role: Any = instance.role
        return role

    def instance(self, id_: str) -> RoleInstance:
        """Return the runtime's half of a living role."""
        return self._directory.find(rc.RoleId(id_))

    # ------------------------------------------------------------------------------------------ what was told

    @property
    def letters(self) -> list[DeadLetter]:
        """All dead letters."""
        return [record for record in self.records if isinstance(record, DeadLetter)]

    @property
    def lines(self) -> list[str]:
        """All lines of the log, as `level source: text`."""
        lines = [record for record in self.records if isinstance(record, LogLine)]
        return [f"{line.level} {line.source}: {line.text}" for line in lines]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """All metrics."""
        return [record.values for record in self.records if isinstance(record, Metric)]

    def statuses(self, id_: str) -> list[str]:
        """The statuses a role went through."""
        changes = [record for record in self.records if isinstance(record, StatusChange)]
        return [change.status for change in changes if change.role == id_]


@pytest.fixture(autouse=True)
def nothing_is_put_into_what_all_share() -> Iterator[None]:
    """Fail a test after which the dictionary that stands for all empty ones is not empty."""
    yield
    assert not NONE_YET and not NO_QUEUE_YET


@pytest.fixture
def world() -> type[World]:
    """Return what opens a world."""
    return World


async def settled(rounds: int = 20) -> None:
    """Let everything run that can."""
    for _ in range(rounds):
        await asyncio.sleep(0)


@pytest.fixture
def settle() -> Callable[[], Any]:
    """Return a coroutine function that lets everything run that can."""
    return settled
