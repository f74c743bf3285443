"""TCP sockets, bare: a length before each message, asyncio's streams on uvloop. What is left when all else is gone."""

from __future__ import annotations

import asyncio
import struct
from multiprocessing.connection import Connection
from typing import Any

from peers.remote.grpc_peers import StreamPeer, answer

LENGTH = struct.Struct("!I")
BUFFER_BYTES = 1 << 20


def serve_sockets(connection: Connection) -> None:
    """Answer on a connection, until killed."""
    import uvloop

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                message = await read(reader)
                write(writer, answer(message))
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=BUFFER_BYTES)
        connection.send("ready")
        connection.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


async def read(reader: asyncio.StreamReader) -> bytes:
    """Read one message."""
    (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    return await reader.readexactly(size)


def write(writer: asyncio.StreamWriter, message: bytes) -> None:
    """Write one message."""
    writer.write(LENGTH.pack(len(message)))
    writer.write(message)


class SocketsPeer(StreamPeer):
    """One connection."""

    name = "TCP"
    serve = staticmethod(serve_sockets)

    def _import(self) -> None:
        pass

    async def _connect(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port, limit=BUFFER_BYTES)

    async def _disconnect(self) -> None:
        self._writer.close()

    async def _write(self, message: bytes) -> None:
        write(self._writer, message)
        await self._writer.drain()

    async def _read(self) -> Any:
        return await read(self._reader)
