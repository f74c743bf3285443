"""Where a run, or a node, is looked after from this machine: a port on loopback, and a record of it.

What serves there is imported when somebody comes for the first time: most runs end before that.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rolecall.core.errors import ConfigError, LifecycleError
from rolecall.core.records import LogLine
from rolecall.fleet.journal import Journal
from rolecall.fleet.records import Record, publish
from rolecall.wire.addresses import format_address
from rolecall.wire.security import new_secret

if TYPE_CHECKING:
    from grpclib.events import RecvRequest

    from rolecall.fleet.management import Management, OnManagement
    from rolecall.wire.grpc_server import Listener
    from rolecall.wire.pipe import Pipe

__all__ = ("Desk", "Gate", "attended", "standing")

logger = logging.getLogger(__name__)

CheckRequest: TypeAlias = "Callable[[RecvRequest], Coroutine[Any, Any, None]]"

CONNECTIONS: Final = 64
HANDSHAKE_S: Final = 5.0
_PAUSE_S: Final = 0.1


class Gate:
    """Serves `management` to whoever knows `secret`; use `open` as a context manager, on the event loop."""

    def __init__(self, management: Callable[[], Management], journal: Journal, name: str) -> None:
        self.secret = new_secret()
        self._management, self._journal, self._name = management, journal, name
        self._listener: Listener | None = None
        self._turn = asyncio.Lock()

    def warn(self, text: str) -> None:
        """Say something to all who watch."""
        logger.warning("%s: %s", self._name, text)
        for observer in self._management().observers:
            observer(LogLine(0.0, "warning", "rolecall", text))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Listen, and yield the address."""
        with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listening:
            listening.setblocking(False)
            serving = asyncio.get_running_loop().create_task(self._accept(listening))
            try:
                yield format_address(*listening.getsockname()[:2])
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                if self._listener is not None:
                    await self._listener.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
                connection.setblocking(False)
                await (await self._serving()).take(connection)
            except OSError as error:
                logger.warning("the gate: no connection could be accepted: %s", error)
                await asyncio.sleep(_PAUSE_S)
            except Exception:
                logger.exception("the gate: it has failed, and nobody can look after this any more")
                raise

    async def _serving(self) -> Listener:
        if self._listener is None:
            await asyncio.to_thread(_load)
            self._listener = self._make()
        return self._listener

    def _make(self) -> Listener:
        from rolecall.fleet.administration import Administration
        from rolecall.wire.admin import Admission
        from rolecall.wire.grpc_server import Listener
        from rolecall.wire.peers import Peer, new_incarnation

        me = Peer(self._name, new_incarnation())
        admission = Admission(self.secret, lambda who, why: self._management().audit("deny", who=who, why=why))
        service = Administration(self._management, self._journal, lambda: me, admission)
        return Listener(
            _no_links, [service], admission.check, tls=None, connections=CONNECTIONS, handshake_s=HANDSHAKE_S
        )


async def _no_links(pipe: Pipe) -> None:
    pipe.close("there are no links here")


def _load() -> None:
    import rolecall.fleet.administration
    import rolecall.wire.grpc_server  # noqa: F401


@asynccontextmanager
async def attended(
    name: str, engine: str, run_dir: str | None = None, on_record: Callable[[Record], None] = lambda record: None
) -> AsyncIterator[OnManagement]:
    """Have a run found and looked after while the body runs; give what is yielded to `run` as `on_management`.

    `on_record` is called when it can be. Where that is not possible the run goes on, with a warning in its log.
    """
    tasks: list[asyncio.Task[None]] = []

    def begin(management: Management) -> None:
        journal = Journal()
        management.observers.append(journal.record)

        def record(address: str, secret: bytes) -> Record:
            nodes = tuple(management.names)
            return Record.of_this_process("run", name, address, secret, nodes=nodes, engine=engine, run_dir=run_dir)

        gate = Gate(lambda: management, journal, name)
        tasks.append(asyncio.get_running_loop().create_task(_keep(gate, record, on_record)))

    try:
        yield begin
    finally:
        await _end(tasks)


class Desk:
    """Looks after a node that somebody started, in all its lives; `standing` makes it.

    Give `services` to `StandingNode` as `admin`, and call `listening` with the address when it listens. `secret` is
    what all nodes know, for those who come by that address.
    """

    def __init__(self, name: str, secret: bytes | None) -> None:
        self.journal = Journal()
        self.tasks: list[asyncio.Task[None]] = []
        self._name, self._secret = name, secret
        self._management: Management | None = None

    def services(self, management: Management) -> tuple[Sequence[Any], CheckRequest]:
        """Return what serves where the node listens, and what looks at each request."""
        from rolecall.fleet.administration import Administration
        from rolecall.wire.admin import Admission
        from rolecall.wire.peers import Peer, new_incarnation

        self._management = management
        management.observers.append(self.journal.record)
        me = Peer(self._name, new_incarnation())
        admission = Admission(self._secret, lambda who, why: management.audit("deny", who=who, why=why))
        return [Administration(lambda: management, self.journal, lambda: me, admission)], admission.check

    def listening(self, address: str | None) -> None:
        """Have the node found by those on this machine."""

        def record(at: str, secret: bytes) -> Record:
            return Record.of_this_process("node", self._name, at, secret, nodes=(self._name,), listen=address)

        gate = Gate(self._current, self.journal, self._name)
        self.tasks.append(asyncio.get_running_loop().create_task(_keep(gate, record, lambda record: None)))

    def _current(self) -> Management:
        if self._management is None:
            raise LifecycleError(f"node {self._name!r} has not begun yet.")
        return self._management


@asynccontextmanager
async def standing(name: str, secret: bytes | None) -> AsyncIterator[Desk]:
    """Have a node that somebody started looked after while the body runs."""
    desk = Desk(name, secret)
    handler = desk.journal.handler(asyncio.get_running_loop().call_soon_threadsafe)
    logging.getLogger("rolecall").addHandler(handler)
    try:
        yield desk
    finally:
        logging.getLogger("rolecall").removeHandler(handler)
        await _end(desk.tasks)


async def _keep(gate: Gate, record: Callable[[str, bytes], Record], on_record: Callable[[Record], None]) -> None:
    """Keep a port open, and a record of it, until this is cancelled."""
    try:
        async with gate.open() as address:
            made = record(address, gate.secret)
            with ExitStack() as stack:
                await asyncio.to_thread(stack.enter_context, publish(made))
                on_record(made)
                await asyncio.get_running_loop().create_future()
    except (ConfigError, OSError) as error:
        gate.warn(f"others cannot look after this: {error}")


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
