"""Records on their way to the conductor: in order, in batches, bounded."""

from __future__ import annotations

import anyio

from rolecall.core.records import LogLine
from rolecall.fleet.reports import BATCH_RECORDS, Outgoing, Reported


def line(number: int) -> LogLine:
    return LogLine(0.0, "info", "n/role", str(number))


def numbers(batches: list[list[Reported]]) -> list[int]:
    return [int(record.text) for batch in batches for record in batch if isinstance(record, LogLine)]


async def test_records_go_in_order_and_in_batches() -> None:
    outgoing, batches = Outgoing(), list[list[Reported]]()
    gate = anyio.Event()

    async def send(records: list[Reported]) -> int:
        batches.append(records)
        await gate.wait()
        return len(records)

    assert await outgoing.all_sent() == 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outgoing.flow, send)
        outgoing.add(line(0))
        await anyio.wait_all_tasks_blocked()
        for number in range(1, BATCH_RECORDS + 2):
            outgoing.add(line(number))
        await anyio.wait_all_tasks_blocked()
        assert numbers(batches) == [0]
        gate.set()
        assert await outgoing.all_sent() == BATCH_RECORDS + 2
        assert [len(batch) for batch in batches] == [1, BATCH_RECORDS, 1]
        assert numbers(batches) == list(range(BATCH_RECORDS + 2))
        tasks.cancel_scope.cancel()


async def test_who_has_not_heard_what_was_before_counts_from_there() -> None:
    outgoing, batches = Outgoing(), list[list[Reported]]()

    async def send(records: list[Reported]) -> int:
        batches.append(records)
        return len(records)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outgoing.flow, send)
        for number in range(3):
            outgoing.add(line(number))
        await outgoing.count_anew()
        assert numbers(batches) == [0, 1, 2]
        outgoing.add(line(3))
        assert await outgoing.all_sent() == 1
        tasks.cancel_scope.cancel()


async def test_too_many_are_dropped_and_counted() -> None:
    outgoing, batches = Outgoing(limit=3), list[list[Reported]]()

    async def send(records: list[Reported]) -> int:
        batches.append(records)
        return len(records) - 1  # one of them cannot travel

    for number in range(5):
        outgoing.add(line(number))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outgoing.flow, send)
        assert await outgoing.all_sent() == 2
        tasks.cancel_scope.cancel()
    assert numbers(batches) == [0, 1, 2]
    assert outgoing.take_dropped() == 2
    assert outgoing.take_dropped() == 0
