"""The checked mode: what would fail between nodes, or only sometimes, fails here and says why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
import pytest

import rolecall as rc
from rolecall.runtime.checking import WATCHED


class Batch(msgspec.Struct):
    values: list[int]
    note: str = ""


class Server(rc.Role):
    done = rc.Topic(Batch)
    box = rc.Inbox(Batch)

    def __init__(self) -> None:
        self.kept: list[Any] = []

    @rc.service
    async def keep(self, batch: Batch) -> None:
        self.kept.append(batch)

    @rc.service
    async def spoil(self, batch: Batch) -> int:
        batch.values.append(99)
        return len(batch.values)

    @rc.service
    async def spoil_and_fail(self, batch: Batch) -> None:
        batch.values.append(99)
        raise ValueError("anyway")

    @rc.service
    async def give(self) -> Batch:
        given = Batch([1])
        self.kept.append(given)
        return given

    @rc.service
    async def change(self) -> None:
        self.kept[-1].values.append(100)

    @rc.service
    async def anything(self, thing: Any) -> Any:
        return thing

    @rc.service
    async def number(self) -> int:
        wrong: Any = "three"
        return wrong

    @rc.service
    async def nothing(self) -> None:
        wrong: Any = 3
        return wrong

    @rc.service
    async def strange(self) -> Any:
        return {"thing": object()}

    @rc.stream
    async def items(self, fault: Any) -> AsyncIterator[int]:
        yield 1
        if fault is not None:
            yield fault

    @rc.stream
    async def batches(self) -> AsyncIterator[Batch]:
        batch = Batch([1])
        yield batch
        batch.values.append(2)
        yield batch

    @rc.service
    async def array(self, values: np.ndarray) -> float:
        values[0] = 7
        return float(values.sum())

    @rc.service
    async def pair(self, pair: tuple[int, str], colours: set[str]) -> str:
        return f"{type(pair).__name__} {type(colours).__name__}"


class Client(rc.Role):
    server: Server = rc.one()

    def __init__(self) -> None:
        self.heard: list[Batch] = []

    @rc.on("server", Server.done)
    async def on_done(self, source: rc.RoleId, batch: Batch) -> None:
        self.heard.append(batch)


class Open:
    """A server and a client on two nodes."""

    def __init__(self, w: Any) -> None:
        self.w = w

    async def __aenter__(self) -> Open:
        await self.w.__aenter__()
        self.server, self.client = await self.w.role("b/server", Server), await self.w.role("a/client", Client)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.w.__aexit__(*error)

    @property
    def violations(self) -> list[str]:
        """What was found, on both nodes, by looking again."""
        found = []
        for node in self.w.nodes.values():
            if node.checker is not None:
                node.checker.look()
                found.extend(str(violation) for violation in node.checker.violations)
        return found


@pytest.fixture
def opened(world) -> Any:
    return lambda checked=True: Open(world("a", "b", checked=checked, server="b/server"))


FROZEN = "A value is frozen from the moment it is passed"


# ---------------------------------------------------------------------------------------------- what travels


async def test_an_argument_arrives_as_a_copy_of_the_declared_type(opened) -> None:
    async with opened() as o:
        sent = Batch([1, 2])
        await o.client.server.keep(sent)
        assert o.server.kept == [sent] and o.server.kept[0] is not sent
        assert await o.client.server.pair((1, "x"), {"red"}) == "tuple set"
        assert await o.client.server.anything((1, 2)) == [1, 2], "as it would between nodes"
        assert o.violations == []


async def test_an_unchecked_node_passes_references(opened) -> None:
    async with opened(checked=False) as o:
        sent = Batch([1, 2])
        await o.client.server.keep(sent)
        assert o.server.kept[0] is sent
        thing = object()
        assert await o.client.server.anything(thing) is thing


async def test_an_argument_that_cannot_be_encoded(opened) -> None:
    async with opened() as o:
        with pytest.raises(rc.NotEncodable) as error:
            await o.client.server.anything({"plan": [1, object()]})
        assert str(error.value).startswith(
            "Server.anything: argument 'thing' at ['plan'][1]: a value of type object cannot travel"
        )


@pytest.mark.parametrize(
    ("channel", "error", "message"),
    [
        ("number", rc.WrongType, r"b/server\.number: result: expected int, found str"),
        ("nothing", rc.WrongType, r"b/server\.nothing: result: expected None, found int"),
        ("strange", rc.NotEncodable, r"b/server\.strange: result.*thing.*: a value of type object cannot travel"),
    ],
)
async def test_a_wrong_result_is_an_error_of_the_call(opened, channel, error, message) -> None:
    async with opened() as o:
        with pytest.raises(error, match=message):
            await getattr(o.client.server, channel)()


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("two", rc.WrongType, r"b/server\.items: item: expected int, found str"),
        (1.5, rc.WrongType, r"b/server\.items: item: expected int, found float"),
    ],
)
async def test_a_wrong_item_ends_the_stream(opened, fault, error, message) -> None:
    async with opened() as o:
        items = o.client.server.items(fault)
        assert await anext(items) == 1
        with pytest.raises(error, match=message):
            await anext(items)


async def test_wrong_contents_of_an_argument(opened) -> None:
    async with opened() as o:
        wrong: Any = Batch(["one"])
        with pytest.raises(
            rc.WrongType, match=r"Server\.keep: argument 'batch' at values\[0\]: expected int, found str"
        ):
            await o.client.server.keep(wrong)


async def test_wrong_contents_of_an_event_or_a_message(opened) -> None:
    async with opened() as o:
        wrong: Any = Batch(["one"])
        with pytest.raises(rc.WrongType, match=r"b/server\.done: event\.values\[0\]: expected int, found str"):
            await o.server.done.emit(wrong)
        with pytest.raises(rc.WrongType, match=r"b/server\.box: message\.values\[0\]: expected int, found str"):
            await o.client.server.box.put(wrong)


async def test_an_array_that_arrives_cannot_be_written(opened) -> None:
    async with opened() as o:
        with pytest.raises(ValueError, match="read-only"):
            await o.client.server.array(np.zeros(3))


# ---------------------------------------------------------------------------------------------- changed by the caller


async def test_an_argument_changed_by_its_caller_after_the_call(opened) -> None:
    async with opened() as o:
        sent = Batch([1])
        await o.client.server.keep(sent)
        assert o.violations == []
        sent.values.append(2)
        [violation] = o.violations
        assert violation.startswith("b/server.keep: an argument was changed after it was handed over by a/client.")
        assert FROZEN in violation
        [letter] = o.w.letters
        assert (letter.kind, letter.role, letter.channel) == ("value", "a/client", "b/server.keep")
        assert len(o.violations) == 1, "it is told once"


async def test_an_argument_changed_by_its_caller_during_the_call(opened, settle) -> None:
    import asyncio

    class Slow(Server):
        async def keep(self, batch: Batch) -> None:
            await settle(5)

    async with opened() as o:
        await o.w.role("b/slow", Slow)
        client = await o.w.role("a/other", Client)
        client._host.relations._members["server"] = (rc.RoleId("b/slow"),)
        sent = Batch([1])
        call = asyncio.create_task(client.server.keep(sent))
        await settle(2)
        sent.values.append(2)
        with pytest.raises(rc.ValueChanged, match=r"b/slow\.keep: an argument was changed .* by a/other"):
            await call
        assert o.violations == [], "its caller was told"


async def test_an_event_changed_after_it_was_emitted(opened, settle) -> None:
    async with opened() as o:
        event = Batch([1])
        await o.server.done.emit(event)
        await settle()
        assert o.client.heard == [event] and o.violations == []
        event.note = "changed"
        [violation] = o.violations
        assert violation.startswith("b/server.done: an event was changed after it was handed over by b/server.")


async def test_an_event_changed_by_a_subscriber(opened, settle) -> None:
    async with opened() as o:
        await o.server.done.emit(Batch([1]))
        await settle()
        o.client.heard[0].values.clear()
        [violation] = o.violations
        assert violation.startswith("b/server.done: an event, as its receiver got it, was changed")


async def test_a_message_changed_after_it_was_put(opened) -> None:
    async with opened() as o:
        message = Batch([1])
        await o.client.server.box.put(message)
        message.values.append(2)
        taken = await o.server.box.take()
        assert taken == Batch([1])
        taken.values.append(3)
        assert [v.partition(" was changed")[0] for v in o.violations] == [
            "b/server.box: a message",
            "b/server.box: a message, as its receiver got it,",
        ]


# ---------------------------------------------------------------------------------------------- changed by the handler


async def test_an_argument_changed_by_its_handler(opened) -> None:
    async with opened() as o:
        sent = Batch([1])
        with pytest.raises(rc.ValueChanged, match=r"b/server\.spoil: an argument, as its handler got it, was changed"):
            await o.client.server.spoil(sent)
        assert sent == Batch([1]) and o.violations == []


async def test_an_argument_changed_by_a_handler_that_fails(opened) -> None:
    async with opened() as o:
        with pytest.raises(ValueError, match="anyway"):
            await o.client.server.spoil_and_fail(Batch([1]))
        [violation] = o.violations
        assert violation.startswith("b/server.spoil_and_fail: an argument, as its handler got it, was changed")


async def test_an_argument_changed_by_its_handler_after_it_has_returned(opened) -> None:
    async with opened() as o:
        await o.client.server.keep(Batch([1]))
        await o.client.server.change()
        [violation] = o.violations
        assert violation.startswith("b/server.keep: an argument, as its handler got it, was changed")


async def test_a_result_changed_after_it_was_returned(opened) -> None:
    async with opened() as o:
        result = await o.client.server.give()
        await o.client.server.change()
        assert result == Batch([1])
        result.values.append(5)
        assert [v.partition(" was changed")[0] for v in o.violations] == [
            "b/server.give: a result",
            "b/server.give: a result, as its receiver got it,",
        ]


async def test_an_item_changed_after_it_was_yielded(opened) -> None:
    async with opened() as o:
        read = [item.values async for item in o.client.server.batches()]
        assert read == [[1], [1, 2]]
        [violation] = o.violations
        assert violation.startswith("b/server.batches: an item was changed after it was handed over by b/server")


# ---------------------------------------------------------------------------------------------- what it costs


async def test_only_the_newest_values_are_watched_and_none_that_cannot_change(opened) -> None:
    async with opened() as o:
        first = Batch([1])
        await o.client.server.keep(first)
        for number in range(3 * WATCHED):
            await o.client.server.anything([number, "text", rc.Tensors({"w": [1.0]})][number % 3])
        first.values.append(2)
        assert len(o.violations) == 1, "what cannot change takes no place"
        second = Batch([1])
        await o.client.server.keep(second)
        for _ in range(WATCHED):
            await o.client.server.keep(Batch([1]))
        second.values.append(2)
        assert len(o.violations) == 1


async def test_a_value_that_has_become_strange_is_changed(opened) -> None:
    async with opened() as o:
        sent: dict[str, Any] = {"a": 1}
        await o.client.server.anything(sent)
        sent["b"] = object()
        [violation] = o.violations
        assert violation.startswith("b/server.anything: an argument was changed")
