"""grpcio (aio) and grpclib, bare: one bidirectional stream of raw bytes, which nothing has to serialise."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import numpy as np
from harness import IN_FLIGHT, LARGE_VALUES, TENSOR_VALUES, time_rounds_async
from peers.remote.children import Children

METHOD = "/bench.Echo/Talk"
MESSAGE_BYTES = 1 << 30
SMALL = b"x" * 20
LARGE_BYTES = 4_096  # what is longer is answered with its length


class StreamPeer(ABC):
    """What the two have in common: the workloads over a stream that can be written and read."""

    lacks: ClassVar[frozenset[str]] = frozenset({"event"})
    spared: ClassVar[int] = 1
    idioms: ClassVar[dict[str, str]] = {"calls": "messages, 1,000 before the first answer is read"}

    def rounds(self, workload: str, operations: int, rounds: int) -> list[float]:
        """Time one of the coroutines below."""
        return self._runner.run(time_rounds_async(getattr(self, f"_{workload}"), operations, rounds))

    def open(self) -> None:
        """Start the server in a process of its own, and a stream to it."""
        import uvloop

        self._import()
        self._children = Children()
        connection = self._children.start(self.serve)
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._runner.run(self._connect(connection.recv()))

    def close(self) -> None:
        """End both."""
        self._runner.run(self._disconnect())
        self._runner.close()
        self._children.close()

    serve: ClassVar[Any]

    @abstractmethod
    def _import(self) -> None: ...

    @abstractmethod
    async def _connect(self, port: int) -> None: ...

    @abstractmethod
    async def _disconnect(self) -> None: ...

    @abstractmethod
    async def _write(self, message: bytes) -> None: ...

    @abstractmethod
    async def _read(self) -> Any: ...

    async def _call(self, operations: int) -> None:
        for _ in range(operations):
            await self._write(SMALL)
            await self._read()

    async def _calls(self, operations: int) -> None:
        for start in range(0, operations, IN_FLIGHT):
            count = min(IN_FLIGHT, operations - start)
            for _ in range(count):
                await self._write(SMALL)
            for _ in range(count):
                await self._read()

    async def _tensor(self, operations: int) -> None:
        await self._send(np.zeros(TENSOR_VALUES, np.float32), operations)

    async def _large(self, operations: int) -> None:
        await self._send(np.zeros(LARGE_VALUES, np.float32), operations)

    async def _send(self, tensor: np.ndarray[Any, Any], operations: int) -> None:
        for _ in range(operations):
            await self._write(tensor.tobytes())
            assert int(await self._read()) == tensor.nbytes


def answer(message: bytes) -> bytes:
    """Return a small message, or how long a large one is."""
    return message if len(message) <= LARGE_BYTES else str(len(message)).encode()


def serve_grpcio(connection: Connection) -> None:
    """Answer on a stream of grpcio, until killed."""
    import grpc
    import uvloop

    async def talk(messages: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(answer(message))

    async def main() -> None:
        server = grpc.aio.server(options=GRPC_OPTIONS)
        handlers = {"Talk": grpc.stream_stream_rpc_method_handler(talk)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        connection.send("ready")
        connection.send(port)
        await server.wait_for_termination()

    uvloop.run(main())


GRPC_OPTIONS = (("grpc.max_send_message_length", MESSAGE_BYTES), ("grpc.max_receive_message_length", MESSAGE_BYTES))


class GrpcioPeer(StreamPeer):
    """grpcio's asyncio API, a stream of bytes."""

    name = "grpcio aio"
    serve = staticmethod(serve_grpcio)

    def _import(self) -> None:
        import grpc.aio  # noqa: F401

    async def _connect(self, port: int) -> None:
        import grpc

        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=GRPC_OPTIONS)
        self._stream: Any = self._channel.stream_stream(METHOD)()
        await self._stream.wait_for_connection()

    async def _disconnect(self) -> None:
        self._stream.cancel()
        await self._channel.close()

    async def _write(self, message: bytes) -> None:
        await self._stream.write(message)

    async def _read(self) -> Any:
        return await self._stream.read()


class RawCodec:
    """Leaves bytes as they are, for grpclib."""

    __content_subtype__ = "raw"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Return the bytes."""
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        """Return the bytes."""
        return data


def serve_grpclib(connection: Connection) -> None:
    """Answer on a stream of grpclib, until killed."""
    import uvloop
    from grpclib.const import Cardinality, Handler
    from grpclib.server import Server

    class Echo:
        def __mapping__(self) -> dict[str, Handler]:
            return {METHOD: Handler(self.talk, Cardinality.STREAM_STREAM, bytes, bytes)}

        async def talk(self, stream: Any) -> None:
            while (message := await stream.recv_message()) is not None:
                await stream.send_message(answer(message))

    async def main() -> None:
        server: Any = Server([Echo()], codec=RawCodec())  # type: ignore[arg-type]
        await server.start("127.0.0.1", 0)
        connection.send("ready")
        connection.send(server._server.sockets[0].getsockname()[1])
        await server.wait_closed()

    uvloop.run(main())


class GrpclibPeer(StreamPeer):
    """grpclib as it comes, a stream of bytes."""

    name = "grpclib"
    serve = staticmethod(serve_grpclib)

    def _import(self) -> None:
        import grpclib  # noqa: F401

    async def _connect(self, port: int) -> None:
        from grpclib.client import Channel
        from grpclib.const import Cardinality

        self._channel = Channel("127.0.0.1", port, codec=RawCodec())  # type: ignore[arg-type]
        self._stream: Any = self._channel.request(METHOD, Cardinality.STREAM_STREAM, bytes, bytes)
        await self._stream.__aenter__()
        await self._stream.send_request()

    async def _disconnect(self) -> None:
        await self._stream.cancel()
        self._channel.close()

    async def _write(self, message: bytes) -> None:
        await self._stream.send_message(message)

    async def _read(self) -> Any:
        return await self._stream.recv_message()
