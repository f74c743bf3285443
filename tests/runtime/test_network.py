"""Roles on other nodes as seen from one node: links made when needed, subscriptions acknowledged, nodes lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

import rolecall as rc
from rolecall.core.errors import NodeLost, RoleLost, UnknownRole
from rolecall.core.records import DeadLetter, Record
from rolecall.runtime import network as network_module
from rolecall.runtime.instance import Hosting, RoleInstance
from rolecall.runtime.network import Network
from rolecall.runtime.node import Node, NodeOptions
from rolecall.runtime.relations import Target
from rolecall.wire import encode
from rolecall.wire.frames import Admitted, Call, Cancelled, Ended, Event, Full, Item, Progress, Reply, Subscribe
from rolecall.wire.limits import LinkOverflow


class News(msgspec.Struct, frozen=True):
    number: int


class Server(rc.Role):
    news = rc.Topic(News)
    box = rc.Inbox(int, capacity=1)

    @rc.service
    async def echo(self, number: int) -> int:
        return number

    @rc.service
    async def wait(self) -> None:
        await anyio.sleep_forever()

    @rc.task(progress=News)
    async def work(self) -> int:
        rc.progress(News(1))
        await anyio.sleep_forever()
        return 1

    @rc.stream
    async def count(self) -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()


class Client(rc.Role):
    server: Server = rc.one()
    servers: rc.Group[Server] = rc.many()
    inbox = rc.Inbox(int)

    def __init__(self) -> None:
        self.left: list[rc.RoleId] = []

    @servers.on_leave
    async def on_left(self, role: rc.RoleId) -> None:
        self.left.append(role)


class Listener(rc.Role):
    servers: rc.Group[Server] = rc.many()

    def __init__(self) -> None:
        self.seen: list[int] = []

    @servers.on(Server.news)
    async def on_news(self, source: rc.RoleId, news: News) -> None:
        self.seen.append(news.number)


class Wire:
    """One end of a link in memory."""

    def __init__(self) -> None:
        self.other: Wire | None = None
        self.sent: list[Any] = []
        self.payloads: list[Sequence[Any]] = []
        self.held: list[tuple[Any, list[memoryview]]] | None = None
        self.on_frame: Callable[[Any, Sequence[memoryview]], None] | None = None

    def send(self, frame: Any, segments: Sequence[Any] = (), *, compress: bool = False) -> None:
        self.sent.append(frame)
        self.payloads.append(segments)
        payload = [memoryview(bytes(segment)) for segment in segments]
        if self.held is not None:
            self.held.append((frame, payload))
        else:
            asyncio.get_running_loop().call_soon(self.deliver, frame, payload)

    def asked(self, kind: type) -> list[Any]:
        """Return the frames of a kind that were sent."""
        return [frame for frame in self.sent if type(frame) is kind]

    def deliver(self, frame: Any, payload: list[memoryview]) -> None:
        assert self.other is not None and self.other.on_frame is not None
        self.other.on_frame(frame, payload)

    def release(self) -> None:
        """Deliver what was held, and hold no more."""
        held, self.held = self.held or [], None
        for frame, payload in held:
            self.deliver(frame, payload)


class Pair:
    """Two nodes: `a` has servers, `b` a client."""

    def __init__(self, a: Node, b: Node) -> None:
        self.a, self.b = a, b
        self.wires = Wire(), Wire()
        self.wires[0].other, self.wires[1].other = self.wires[1], self.wires[0]
        self.reached: list[str] = []
        self.records: list[Record] = []
        b.observers.append(self.records.append)
        self.net_a = a.network = Network(a)
        self.net_b = b.network = Network(b, self.reach)

    def reach(self, peer: str) -> bool:
        self.reached.append(peer)
        return peer == "a"

    def join(self) -> None:
        """Link the nodes."""
        self.net_a.join("b", self.wires[0])
        self.net_b.join("a", self.wires[1])

    async def host(self, node: Node, name: str, role_class: type[rc.Role]) -> RoleInstance:
        """Host and start a role, known to both."""
        instance = node.host(Hosting(id=rc.RoleId(f"{node.name}/{name}"), role_class=role_class))
        (self.net_b if node is self.a else self.net_a).bind(instance.id, node.name)
        await instance.start()
        return instance

    @property
    def letters(self) -> list[DeadLetter]:
        return [record for record in self.records if isinstance(record, DeadLetter)]


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    target = {"server": Target(("a/server",)), "servers": Target(("a/*",))}
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(Node("a"))
        b = await stack.enter_async_context(Node("b", options=NodeOptions(relationships=target)))
        yield Pair(a, b)


async def test_the_first_message_makes_the_link() -> None:
    async with pair() as nodes:
        await nodes.host(nodes.a, "server", Server)
        client = (await nodes.host(nodes.b, "client", Client)).role
        answers: list[int] = []

        async def call(number: int) -> None:
            answers.append(await client.server.echo(number))

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(call, number)
            await anyio.wait_all_tasks_blocked()
            assert nodes.reached == ["a"]  # once for all of them
            assert answers == []
            nodes.join()
        assert answers == [0, 1, 2]
        assert await client.server.echo(3) == 3
        assert nodes.reached == ["a"]
        for node in (nodes.a, nodes.b):  # four calls, four replies, a number in each
            network = node.network
            assert network is not None and network.sent_messages == 4
            assert 4 <= network.sent_bytes <= 4 * 20


async def test_the_arguments_of_a_group_call_are_encoded_once() -> None:
    async with pair() as nodes:
        nodes.join()
        for number in range(3):
            await nodes.host(nodes.a, f"server{number}", Server)
        client = (await nodes.host(nodes.b, "client", Client)).role
        wire = nodes.wires[1]
        replies = await client.servers.call(Server.echo, 7)
        assert list(replies.values()) == [7] * 3
        first, *others = wire.payloads
        assert len(others) == 2 and all(payload[0] is first[0] for payload in others)

        wire.payloads.clear()
        each = {role: number for number, role in enumerate(client.servers)}
        replies = await client.servers.call_each(lambda role: Server.echo.bind(each[role]))
        assert dict(replies) == each
        assert len({bytes(payload[0]) for payload in wire.payloads}) == 3


async def test_what_waits_for_a_link_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "WAITING_FRAMES", 2)
    monkeypatch.setattr(network_module, "WAITING_BYTES", 100)
    async with pair() as nodes:
        send = nodes.net_b.send
        send("a", Event(1), [b"x" * 100])
        with pytest.raises(LinkOverflow, match="bytes"):
            send("a", Event(2), [b"x"])
        send("a", Event(3))
        with pytest.raises(LinkOverflow, match="frames"):
            send("a", Event(4))
        nodes.join()
        assert nodes.wires[1].sent == [Event(1), Event(3)]


async def test_a_node_that_cannot_be_reached_is_lost() -> None:
    async with pair() as nodes:
        await nodes.host(nodes.a, "server", Server)
        client = (await nodes.host(nodes.b, "client", Client)).role
        errors: list[Exception] = []

        async def attempt(message: Any) -> None:
            try:
                await message
            except RoleLost as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(attempt, client.server.echo(1))
            tasks.start_soon(attempt, client.server.box.put(1))
            await anyio.wait_all_tasks_blocked()
            nodes.net_b.leave("a", "nobody listens there")
        assert [str(error) for error in errors] == [
            "a/server was lost: nobody listens there (effect of the call: none)."  # nothing ever left
        ] * 2
        nodes.net_b.send("a", Event(1))
        nodes.net_b.send("nobody", Event(1))
        assert nodes.reached == ["a", "a", "nobody"]


async def test_subscriptions_are_acknowledged() -> None:
    async with pair() as nodes:
        nodes.join()
        server = await nodes.host(nodes.a, "server", Server)
        nodes.wires[1].held = []
        listener = await nodes.host(nodes.b, "listener", Listener)
        known = anyio.Event()

        async def wait() -> None:
            await nodes.net_b.subscribed()
            known.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert not known.is_set()
            nodes.wires[1].release()
        await server.role.news.emit(News(1))
        await anyio.wait_all_tasks_blocked()
        assert listener.role.seen == [1]


@pytest.mark.parametrize("how", ["refused", "lost", "ended"])
async def test_nobody_waits_for_a_subscription_that_will_not_be(how: str) -> None:
    async with pair() as nodes:
        nodes.join()
        nodes.net_b.bind(rc.RoleId("a/ghost"), "a")
        nodes.wires[1].held = []
        await nodes.host(nodes.b, "listener", Listener)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(nodes.net_b.subscribed)
            await anyio.wait_all_tasks_blocked()
            if how == "lost":
                nodes.net_b.leave("a", "it is gone")
            elif how == "ended":
                await nodes.b.stop()
            else:
                nodes.wires[1].release()
        assert [letter.kind for letter in nodes.letters] == (["subscription"] if how == "refused" else [])


async def test_a_lost_node_ends_what_waits_for_it() -> None:
    async with pair() as nodes:
        nodes.join()
        await nodes.host(nodes.a, "server", Server)
        client = (await nodes.host(nodes.b, "client", Client)).role
        events = client.server.news.subscribe()
        ended: dict[str, Exception] = {}

        async def attempt(name: str, waiting: Any) -> None:
            try:
                await waiting
            except Exception as error:
                ended[name] = error

        async def read() -> None:
            async for _ in client.server.count():
                pass

        async with events, anyio.create_task_group() as tasks:
            tasks.start_soon(attempt, "call", client.server.wait())
            tasks.start_soon(attempt, "task", client.server.work())
            tasks.start_soon(attempt, "stream", read())
            tasks.start_soon(attempt, "event", events.take())
            tasks.start_soon(attempt, "inbox", client.inbox.take(source=rc.RoleId("a/server")))
            await anyio.wait_all_tasks_blocked()
            nodes.net_b.leave("a", "it is gone")
        assert {name: type(error) for name, error in ended.items()} == dict.fromkeys(
            ("call", "task", "stream", "event", "inbox"), NodeLost
        )
        assert client.left == ["a/server"]
        with pytest.raises(NodeLost, match=r"it is gone \(effect of the call: none\)"):
            await client.server.echo(1)


async def test_a_role_that_ended_elsewhere_is_lost_alone() -> None:
    async with pair() as nodes:
        nodes.join()
        await nodes.host(nodes.a, "server", Server)
        await nodes.host(nodes.a, "spare", Server)
        client = (await nodes.host(nodes.b, "client", Client)).role
        assert list(client.servers) == ["a/server", "a/spare"]
        nodes.net_b.unbind(rc.RoleId("a/server"), RoleLost("a/server", "it has failed", "none"))
        assert list(client.servers) == ["a/spare"]
        with pytest.raises(RoleLost, match="it has failed"):
            await client.server.echo(1)
        nodes.net_b.unbind(rc.RoleId("a/server"), RoleLost("a/server", "it has failed", "none"))


async def test_an_unlisted_role_matches_no_pattern() -> None:
    async with pair() as nodes:
        nodes.join()
        server = nodes.a.host(Hosting(id=rc.RoleId("a/server"), role_class=Server))
        await server.start()
        nodes.net_b.bind(server.id, "a", listed=False)
        client = (await nodes.host(nodes.b, "client", Client)).role
        assert list(client.servers) == []
        assert await client.server.echo(1) == 1  # who knows its name can reach it
        with pytest.raises(UnknownRole) as raised:
            nodes.b.local_dispatcher(rc.RoleId("a/servre"), "echo")
        assert "a/server" not in str(raised.value)


async def test_what_makes_no_sense_is_buried_and_the_link_goes_on() -> None:
    async with pair() as nodes:
        nodes.join()
        server = await nodes.host(nodes.a, "server", Server)
        listener = await nodes.host(nodes.b, "listener", Listener)
        client = (await nodes.host(nodes.b, "client", Client)).role
        [subscribed] = nodes.wires[1].asked(Subscribe)
        for answer in (Admitted, Full, Cancelled, Reply, Progress, Item, Ended):  # to what is no such question
            nodes.wires[0].send(answer(subscribed.id))
        nonsense = [memoryview(bytes(part)) for part in encode({"number": "no number"})]
        nodes.wires[0].send(Event(subscribed.id), nonsense)
        task = await client.server.work.start()
        nodes.wires[0].send(Progress(nodes.wires[1].asked(Call)[-1].id), nonsense)
        items = client.server.count()
        assert await anext(items) == 1
        nodes.wires[0].send(Item(nodes.wires[1].asked(Call)[-1].id), nonsense)
        with pytest.raises(rc.WrongType):
            await anext(items)
        assert [letter.kind for letter in nodes.letters] == ["event", "progress"]
        await server.role.news.emit(News(2))
        await anyio.wait_all_tasks_blocked()
        assert listener.role.seen == [2]
        await task.cancel()


async def test_a_node_answers_only_what_it_was_asked() -> None:
    async with pair() as nodes:
        nodes.join()
        await nodes.host(nodes.a, "server", Server)
        client = (await nodes.host(nodes.b, "client", Client)).role
        other = Wire()
        nodes.net_b.join("c", other)
        assert other.on_frame is not None
        nodes.wires[0].held = []
        answers: list[int] = []

        async def call() -> None:
            answers.append(await client.server.echo(1))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            [asked] = nodes.wires[1].asked(Call)
            other.on_frame(Reply(asked.id), [memoryview(bytes(part)) for part in encode(666)])
            await anyio.wait_all_tasks_blocked()
            assert answers == []
            nodes.wires[0].release()
        assert answers == [1]
