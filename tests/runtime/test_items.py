from __future__ import annotations

import asyncio

import pytest

from rolecall.runtime.items import Items


async def test_a_writer_stays_within_its_window() -> None:
    items: Items[int] = Items(2)

    async def write() -> None:
        for number in range(5):
            await items.write(number)
        items.close()

    writer = asyncio.create_task(write())
    await asyncio.sleep(0)
    assert len(items.waiting) == 2
    read = [await items.read() for _ in range(5)]
    assert read == [0, 1, 2, 3, 4]
    with pytest.raises(StopAsyncIteration):
        await items.read()
    await writer
