"""A call that waits for itself is an error; a legitimate return to a role is not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

import rolecall as rc


class Turn(rc.Role):
    """Calls itself and others, to a given depth."""

    peer: Turn = rc.one()
    peers: rc.Group[Turn] = rc.many()

    @rc.service
    async def serial(self, depth: int) -> int:
        return 1 + await self.peer.serial(depth - 1) if depth else 0

    @rc.service(concurrent=True)
    async def free(self, depth: int) -> int:
        return 1 + await self.peer.free(depth - 1) if depth else 0

    @rc.service(concurrent=2)
    async def two(self, depth: int) -> int:
        return 1 + await self.peer.two(depth - 1) if depth else 0

    @rc.service
    async def echo(self, value: int) -> int:
        return value

    @rc.service
    async def other_channel(self) -> int:
        return await self.peer.back()

    @rc.service
    async def back(self) -> int:
        return await self.peer.echo(7)

    @rc.service
    async def ask_all(self) -> int:
        replies = await self.peers.within(quorum=1).call(Turn.cyclic)
        self.failures = dict(replies.failures)
        return len(replies)

    @rc.service
    async def cyclic(self) -> int:
        return await self.peer.ask_all() if self.id == "b/turn" else 1

    @rc.task
    async def started(self, depth: int) -> int:
        if depth:
            self.handle = await self.peer.started.start(depth - 1)
        return depth

    @rc.stream
    async def items(self, depth: int) -> AsyncIterator[int]:
        yield depth
        if depth:
            async for item in self.peer.items(depth - 1):
                yield item


async def opened(w) -> tuple[Turn, Turn]:
    return await w.role("a/turn", Turn), await w.role("b/turn", Turn)


class Client(rc.Role):
    first: Turn = rc.one()


@pytest.fixture
def pair(world):
    """Return a world of two nodes whose roles `turn` are each other's peer."""
    peers = {"a": "b/turn", "b": "a/turn"}
    return lambda **options: world("a", "b", first="a/turn", peer=peers, peers="*/turn", **options)


@pytest.mark.parametrize("checked", [True, False])
async def test_a_cycle_is_raised_where_it_closes_and_names_its_path(pair, checked) -> None:
    async with pair(checked=checked) as w:
        await opened(w)
        client = await w.role("a/client", Client)
        assert await client.first.serial(1) == 1
        with pytest.raises(rc.CallCycle) as raised:
            await client.first.serial(2)
        assert str(raised.value) == (
            "The call would never return: a/turn.serial -> b/turn.serial -> a/turn.serial. Declare the channel "
            "`concurrent=True`, or start a task instead of waiting for the answer."
        )
        assert await client.first.serial(1) == 1


async def test_a_channel_with_room_may_be_entered_again(pair) -> None:
    async with pair() as w:
        await opened(w)
        client = await w.role("a/client", Client)
        assert await client.first.free(20) == 20
        assert await client.first.two(3) == 3  # two slots on each side
        with pytest.raises(rc.CallCycle):
            await client.first.two(4)


async def test_another_channel_of_the_same_role_is_no_cycle(pair) -> None:
    async with pair() as w:
        await opened(w)
        client = await w.role("a/client", Client)
        assert await client.first.other_channel() == 7


async def test_a_started_task_is_not_waited_for_and_so_no_cycle(pair, settle) -> None:
    async with pair() as w:
        first, _ = await opened(w)
        client = await w.role("a/client", Client)
        assert await client.first.started(3) == 3
        await settle()
        assert first.handle.role == "b/turn"
        assert await first.handle == 0


async def test_a_cycle_through_a_group_is_the_failure_of_one_member(pair) -> None:
    async with pair() as w:
        first, _ = await opened(w)
        client = await w.role("a/client", Client)
        assert await client.first.serial(1) == 1  # so that both are at work already, and neither answers first
        assert await client.first.ask_all() == 1
        assert {role: type(error) for role, error in first.failures.items()} == {"b/turn": rc.CallCycle}


async def test_a_cycle_through_streams_is_found(pair) -> None:
    async with pair() as w:
        await opened(w)
        client = await w.role("a/client", Client)
        assert [item async for item in client.first.items(1)] == [1, 0]
        items = []
        with pytest.raises(rc.CallCycle):
            async for item in client.first.items(2):
                items.append(item)  # noqa: PERF401 - what came before the error counts
        assert items == [2, 1]


@pytest.mark.virtual_time
async def test_two_independent_chains_that_wait_for_each_other_end_by_deadline(pair, settle) -> None:
    async with pair() as w:
        first, second = await opened(w)
        ends = []

        async def call(role: Turn) -> None:
            try:
                with anyio.fail_after(5):
                    await role.peer.serial(1)
            except TimeoutError:
                ends.append(role.id)

        async with anyio.create_task_group() as calls:  # each holds one role's channel and wants the other's
            calls.start_soon(call, first)
            calls.start_soon(call, second)
        assert sorted(ends) == ["a/turn", "b/turn"]
        said = "\n".join(w.lines)
        assert "a/turn.serial: was cancelled: the deadline of its caller b/turn passed while it ran" in said
        assert "b/turn.serial: was not handled: the deadline of its caller a/turn passed while it waited" in said
        assert await first.peer.serial(0) == 0
