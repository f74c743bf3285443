from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from rolecall.wire.limits import Malformed
from rolecall.wire.shared_listener import SharedListener, connected_to
from rolecall.wire.shared_messages import Announce, Message, Release, Retire, encode_message
from rolecall.wire.shared_socket import SharedSocket

pytestmark = pytest.mark.every_loop


class End:
    """One end of a socket, and what has come there."""

    def __init__(self, connected: socket.socket) -> None:
        self.raw = connected
        self.messages: list[tuple[Message, bool]] = []
        self.failure: Exception | None = None
        self.changed = asyncio.Event()
        self.socket = SharedSocket(connected)
        self.socket.on_message, self.socket.on_failed = self._on_message, self._on_failed

    def _on_message(self, message: Message, fd: int) -> None:
        self.messages.append((message, fd >= 0 and bool(os.fstat(fd))))
        self.changed.set()

    def _on_failed(self, error: Exception) -> None:
        self.failure = error
        self.changed.set()

    async def until(self, count: int) -> None:
        """Wait for so many messages, or a failure."""
        async with asyncio.timeout(5):
            while len(self.messages) < count and self.failure is None:
                self.changed.clear()
                await self.changed.wait()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield pair
    for one in pair:
        one.close()


async def test_messages_and_descriptors_come_in_order(raw) -> None:
    a, b = End(raw[0]), End(raw[1])
    before = descriptors()
    for number in range(100):
        if number % 2:
            a.socket.send(Retire(number))
        else:
            assert a.socket.pass_on(Announce(number, 1), 0)
    await b.until(100)
    assert b.messages == [(Retire(n), False) if n % 2 else (Announce(n, 1), True) for n in range(100)]
    assert descriptors() == before
    a.socket.close()
    b.socket.close()


async def test_messages_wait_for_room_and_descriptors_are_not_passed_past_them(raw) -> None:
    a = End(raw[0])
    for number in range(2_000):
        a.socket.send(Retire(number))
    assert not a.socket.pass_on(Announce(1, 1), 0)
    b = End(raw[1])
    await b.until(2_000)
    assert [message for message, _ in b.messages] == [Retire(number) for number in range(2_000)]
    assert a.socket.pass_on(Announce(1, 1), 0)
    a.socket.close()
    b.socket.close()


async def test_a_peer_that_takes_nothing_is_given_up(raw) -> None:
    a = End(raw[0])
    for number in range(20_000):
        a.socket.send(Retire(number))
    assert isinstance(a.failure, ConnectionError) and a.socket.closed
    assert not a.socket.pass_on(Announce(1, 1), 0)


async def test_the_end_of_the_other_side_is_told_once(raw) -> None:
    a, b = End(raw[0]), End(raw[1])
    a.socket.send(Retire(1))
    a.socket.close()
    await b.until(2)
    assert [message for message, _ in b.messages] == [Retire(1)]
    assert isinstance(b.failure, ConnectionError) and b.socket.closed
    b.socket.send(Retire(2))
    b.socket.poll()
    b.socket.close()


@pytest.mark.parametrize("data", [b"nonsense", bytes(10_000), encode_message(Release([1])) + b"x"])
async def test_what_is_no_message_is_malformed(raw, data: bytes) -> None:
    b = End(raw[1])
    raw[0].send(data)
    await b.until(1)
    assert isinstance(b.failure, Malformed) and not b.messages


@pytest.mark.parametrize("count", [2, 4, 100])
async def test_more_than_one_descriptor_is_refused(raw, count: int) -> None:
    b = End(raw[1])
    before = descriptors()
    socket.send_fds(raw[0], [encode_message(Announce(1, 1))], [0] * count)
    await b.until(1)
    assert b.failure is not None and not b.messages
    assert descriptors() == before - 1, "its own is closed, and so are those that came"


async def test_all_that_has_come_can_be_read_at_once(raw) -> None:
    b = End(raw[1])
    for number in range(200):
        raw[0].send(encode_message(Retire(number)))
    b.socket.poll()
    assert len(b.messages) == 200
    b.socket.close()


async def test_nobody_listens_any_more_after_it_is_closed() -> None:
    before = descriptors()
    came: list[socket.socket] = []
    listener = SharedListener(came.append)
    connected = connected_to(listener.name)
    while not came:  # noqa: ASYNC110 - it is told by nothing else
        await asyncio.sleep(0)
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        connected_to(listener.name)
    came.pop().close()
    connected.close()
    assert descriptors() <= before + 1


async def test_a_listener_goes_on_when_there_are_descriptors_again(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[socket.socket] = []
    listener = SharedListener(came.append)
    accept, failures = socket.socket.accept, [OSError(24, "Too many open files")]

    def flaky(self: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", flaky)
    monkeypatch.setattr("rolecall.wire.shared_listener._PAUSE_S", 0.0)
    connected = connected_to(listener.name)
    async with asyncio.timeout(5):
        while not came:  # noqa: ASYNC110 - it is told by nothing else
            await asyncio.sleep(0)
    for one in (connected, came.pop()):
        one.close()
    listener.close()
