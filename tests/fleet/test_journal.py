from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from rolecall.core.ids import RoleId
from rolecall.core.records import DeadLetter, LogLine, Metric, StatusChange
from rolecall.fleet.journal import Journal, Line

ROLE = RoleId("n1/trainer")


@pytest.fixture
def journal() -> Journal:
    numbers = itertools.count()
    return Journal(kept=5, clock=lambda: float(next(numbers)))


def say(journal: Journal, text: str, source: str = "n1/trainer", level: str = "info") -> None:
    journal.record(LogLine(0.0, level, source, text))


async def texts(lines: AsyncIterator[Line]) -> list[str]:
    return [line.text async for line in lines]


async def test_every_kind_of_record_is_a_line(journal: Journal) -> None:
    journal.record(Metric(0.0, ROLE, {"round": 3, "loss": 0.123456789, "who": "a"}))
    journal.record(StatusChange(0.0, ROLE, "ready"))
    journal.record(DeadLetter(0.0, "call", ROLE, "train", "RoleLost: gone"))
    say(journal, "careful", level="warning")
    assert [line async for line in journal.read()] == [
        Line(0.0, "info", "n1/trainer", "round=3 loss=0.123457 who=a"),
        Line(1.0, "info", "n1/trainer", "is ready"),
        Line(2.0, "warning", "n1/trainer", "dead letter: call to n1/trainer.train: RoleLost: gone"),
        Line(3.0, "warning", "n1/trainer", "careful"),
    ]


async def test_the_last_lines_are_kept(journal: Journal) -> None:
    for number in range(7):
        say(journal, str(number))
    assert await texts(journal.read()) == ["2", "3", "4", "5", "6"]
    assert await texts(journal.read(past=2)) == ["5", "6"]
    assert await texts(journal.read(past=0)) == []


@pytest.mark.parametrize(
    ("source", "level", "seen"),
    [
        ("", "info", ["a", "b", "c", "d"]),
        ("n1", "info", ["a", "b", "d"]),
        ("n1/trainer", "info", ["a"]),
        ("n*/trainer", "info", ["a", "c"]),
        ("n[1-2]", "info", ["a", "b", "c", "d"]),
        ("n", "info", []),
        ("", "warning", ["b"]),
    ],
)
async def test_a_reader_chooses(journal: Journal, source: str, level: str, seen: list[str]) -> None:
    say(journal, "a")
    say(journal, "b", "n1/other", "error")
    say(journal, "c", "n2/trainer")
    say(journal, "d", "n1")
    assert await texts(journal.read(source, level)) == seen


async def test_a_reader_follows_and_is_told_what_it_missed(journal: Journal) -> None:
    say(journal, "before")
    lines = journal.read(follow=True)
    assert (await anext(lines)).text == "before"
    seen: list[str] = []

    async def follow() -> None:
        seen.append((await anext(lines)).text)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.lowlevel.checkpoint()
        say(journal, "now")
    assert seen == ["now"]
    for number in range(8):
        say(journal, str(number))
    assert [(await anext(lines)).text for _ in range(3)] == ["3 lines came too fast to be shown", "3", "4"]


async def test_what_python_logs_is_kept_but_for_what_comes_as_a_record(journal: Journal) -> None:
    handler = journal.handler(lambda call: call())
    for name, level in (("rolecall.role.n1/trainer", 30), ("rolecall.wire.exchange", 20), ("rolecall.node", 20)):
        handler.handle(logging.LogRecord(name, level, "", 0, "hello %s", ("you",), None))
    assert [(line.level, line.source, line.text) async for line in journal.read()] == [
        ("warning", "n1/trainer", "hello you"),
        ("info", "rolecall.wire.exchange", "hello you"),
    ]
