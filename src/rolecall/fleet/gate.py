"""Where a run, or a node, is looked after from this machine: a port on loopback, and a record of it.

What serves there is imported when somebody comes for the first time: most runs end before that.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from rolecall.core.errors import ConfigError
from rolecall.core.records import LogLine
from rolecall.fleet.journal import Journal
from rolecall.fleet.records import Record, publish
from rolecall.wire.addresses import format_address
from rolecall.wire.security import new_secret

if TYPE_CHECKING:
    from rolecall.fleet.management import Management, OnManagement
    from rolecall.wire.grpc_server import Listener
    from rolecall.wire.pipe import Pipe

__all__ = ("Gate", "attended")

logger = logging.getLogger(__name__)

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
        tasks.append(asyncio.get_running_loop().create_task(serve(management)))

    async def serve(management: Management) -> None:
        journal = Journal()
        management.observers.append(journal.record)
        gate = Gate(lambda: management, journal, name)
        try:
            async with gate.open() as address:
                nodes = tuple(management.names)
                record = Record.of_this_process(
                    "run", name, address, gate.secret, nodes=nodes, engine=engine, run_dir=run_dir
                )
                with ExitStack() as stack:
                    await asyncio.to_thread(stack.enter_context, publish(record))
                    on_record(record)
                    await asyncio.get_running_loop().create_future()
        except (ConfigError, OSError) as error:
            for observer in management.observers:
                observer(LogLine(0.0, "warning", "rolecall", f"others cannot look after this run: {error}"))

    try:
        yield begin
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
