"""What every test gets: reproducible hypothesis runs, a proxy that cuts connections, none of the machine's settings."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Self

import psutil
import pytest
import uvloop
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

# A loaded machine must not fail tests by its slowness, and a failure must come back when they run again.
settings.register_profile(
    "rolecall", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("rolecall")

SOAK = os.environ.get("ROLECALL_SOAK", "") not in ("", "0")
"""Whether to take counts that need many minutes."""
EVERY_LOOP = os.environ.get("ROLECALL_EVERY_LOOP", "") not in ("", "0")
"""Whether all coroutine tests run on both loops, and not only those marked `every_loop`."""

PR_SET_CHILD_SUBREAPER = 36
MAY_BLOCK = (
    ("<frozen importlib._bootstrap>", "_find_and_load"),  # a first import reads files; it happens once
    ("rolecall/runtime/watchdog.py", "__exit__"),  # joins a thread that has been told to end
    ("rolecall/sim/huge_pages.py", "_held_bytes"),  # reads /proc, which is no disk
    ("rolecall/sim/huge_pages.py", "settle"),  # likewise; it takes its time, but nobody else is there
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_loop: the test runs on asyncio's loop and on uvloop's")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if EVERY_LOOP or item.get_closest_marker("every_loop"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if SOAK else ():
        item.add_marker(pytest.mark.timeout(3_600), append=False)  # before its own


@pytest.fixture
def count() -> Callable[[int, int], int]:
    """Return a function that chooses between the count of every run and that of a soak."""
    return lambda usual, soak: soak if SOAK else usual


@pytest.fixture(autouse=True, scope="module")
def _what_stays_is_not_looked_at() -> None:
    """Have full collections, which hundreds of tests make, pass over what was there before them, such as modules."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the developer's `ROLECALL_*` settings and runs out, and terminal output at one width without colour."""
    for name in [name for name in os.environ if name.startswith("ROLECALL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROLECALL_STATE", str(tmp_path_factory.getbasetemp() / "state"))
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture(autouse=True)
def _loop_never_blocked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a coroutine test in which `rolecall` blocks the event loop, unless it is marked `may_block`."""
    if not inspect.iscoroutinefunction(request.function) or request.node.get_closest_marker("may_block"):
        yield
        return
    with blockbuster_ctx("rolecall") as blockbuster:
        for function in blockbuster.functions.values():
            for file, name in MAY_BLOCK:
                function.can_block_in(file, name)
        yield


@pytest.fixture(scope="module")
def reaping() -> Iterator[None]:
    """Wait for runs that have detached themselves; the first process of a machine does, that of a container may not."""
    adopting = ctypes.CDLL(None).prctl
    adopting(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    for child in psutil.Process().children():
        if os.getsid(child.pid) == child.pid:  # nothing else here begins a session
            child.wait(timeout=20)
    adopting(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Proxy:
    """Stands before an address, for who dials it: cuts the connection after chosen numbers of bytes, or falls silent.

    Each cut number counts the bytes that have passed in both directions since the cut before it. `tell` is called when
    something happens.
    """

    def __init__(self, target: str, cuts: Iterable[int] = (), tell: Callable[[], None] = lambda: None) -> None:
        self._target, self._cuts, self._tell = target, iter(cuts), tell
        self._left = next(self._cuts, None)
        self._writers: set[asyncio.StreamWriter] = set()
        self._awake = asyncio.Event()
        self._awake.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.cuts = self.connections = 0
        self.open = True
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._join(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        self._tell()
        try:
            if self.open:
                host, _, port = self._target.partition(":")
                other_reader, other_writer = await asyncio.open_connection(host, int(port))
                self._writers.add(other_writer)
                await asyncio.gather(self._pass(reader, other_writer), self._pass(other_reader, writer))
        except (OSError, RuntimeError):  # the latter is what uvloop says of a connection that was cut
            pass
        finally:
            self._abort(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._awake.wait()
                passed = data if self._left is None else data[: self._left]
                writer.write(passed)
                if self._left is not None:
                    self._left -= len(passed)
                    if self._left <= 0:
                        self._left = next(self._cuts, None)
                        self.cut()
                await writer.drain()
        finally:
            self._abort(writer)

    def _abort(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._writers.discard(writer)

    def cut(self) -> None:
        """Break all connections."""
        self.cuts += bool(self._writers)
        for writer in list(self._writers):
            self._abort(writer)
        self._tell()

    def silence(self) -> None:
        """Let nothing through any more, and keep the connections."""
        self._awake.clear()

    def speak(self) -> None:
        """Let everything through again."""
        self._awake.set()


@pytest.fixture
def cutting_proxy() -> type[Proxy]:
    """Return what stands between nodes and cuts their connections."""
    return Proxy
