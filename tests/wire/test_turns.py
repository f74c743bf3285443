"""The turns in which the links of a node write, and acknowledge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rolecall.sim.loop import VirtualLoop
from rolecall.wire.daemon import DAEMON, daemon
from rolecall.wire.turns import Turns


class Link:
    """Notes its turns; the first time that it writes, it does `then`."""

    def __init__(self, name: str, notes: list[str], then: Callable[[], None] = lambda: None) -> None:
        self.name, self.notes, self.then = name, notes, then

    def pump(self) -> None:
        self.notes.append(f"{self.name} writes")
        then, self.then = self.then, lambda: None
        then()

    def acknowledge(self) -> None:
        self.notes.append(f"{self.name} acknowledges")
        self.then()


def fail() -> None:
    raise ValueError("this link is broken")


@pytest.fixture
def notes() -> list[str]:
    return []


async def test_links_write_in_the_order_in_which_they_asked_within_one_callback(notes: list[str]) -> None:
    turns = Turns()
    for name in "abc":
        turns.write_soon(Link(name, notes))
    assert notes == []
    asyncio.get_running_loop().call_soon(notes.append, "what came later")
    await asyncio.sleep(0)
    assert notes == ["a writes", "b writes", "c writes", "what came later"]


async def test_who_asks_while_others_write_has_a_turn_after_them(notes: list[str]) -> None:
    turns = Turns()
    late = Link("late", notes)
    turns.write_soon(Link("a", notes, lambda: turns.write_soon(late)))
    turns.write_soon(Link("b", notes))
    await asyncio.sleep(0)
    assert notes == ["a writes", "b writes"]
    await asyncio.sleep(0)
    assert notes == ["a writes", "b writes", "late writes"]
    await asyncio.sleep(0)
    assert len(notes) == 3


async def test_one_that_fails_is_reported_and_keeps_nobody_from_writing(notes: list[str]) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    turns = Turns()
    turns.write_soon(Link("a", notes, fail))
    turns.write_soon(Link("b", notes))
    await asyncio.sleep(0)
    assert notes == ["a writes", "b writes"]
    assert [str(context["exception"]) for context in reported] == ["this link is broken"]
    turns.write_soon(Link("c", notes))
    await asyncio.sleep(0)
    assert notes[-1] == "c writes"


def test_acknowledgements_wait_20_ms_for_an_answer_to_go_with(notes: list[str]) -> None:
    times: list[float] = []
    reported: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def talk() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: reported.append(context))
            turns = Turns()
            began_s = loop.time()
            turns.acknowledge_later(Link("a", notes, fail))
            await asyncio.sleep(0.015)
            turns.acknowledge_later(Link("b", notes, lambda: times.append(loop.time() - began_s)))
            assert notes == []
            await asyncio.sleep(0.006)
            assert notes == ["a acknowledges", "b acknowledges"]
            turns.acknowledge_later(Link("c", notes))
            await asyncio.sleep(0.021)

        runner.run(talk())
    assert notes == ["a acknowledges", "b acknowledges", "c acknowledges"]
    assert times == pytest.approx([0.02])
    assert [str(context["exception"]) for context in reported] == ["this link is broken"]


async def test_who_only_says_that_it_lives_does_not_pass_for_more(notes: list[str]) -> None:
    turns = Turns()
    with daemon():
        turns.write_soon(Link("heartbeat", notes))
    seen: list[bool] = []
    turns.write_soon(Link("call", notes, lambda: seen.append(DAEMON.get())))
    await asyncio.sleep(0)
    assert sorted(notes) == ["call writes", "heartbeat writes"]
    assert seen == [False]
