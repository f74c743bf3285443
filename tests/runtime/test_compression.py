"""What is declared with `compress=True` is small on its way to other nodes, and arrives as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

import rolecall as rc

SIZE = 100_000
PAGE = b"the same line again and again\n" * (SIZE // 30)


class Plain(rc.Role):
    seen = rc.Topic(bytes)
    box = rc.Inbox(bytes)

    @rc.service
    async def echo(self, page: bytes) -> bytes:
        return page

    @rc.task(progress=bytes)
    async def work(self, page: bytes) -> bytes:
        rc.progress(page)
        return page

    @rc.stream
    async def pages(self, page: bytes) -> AsyncIterator[bytes]:
        yield page

    @rc.service
    async def tell(self) -> None:
        await self.seen.emit(PAGE)

    @rc.service
    async def taken(self) -> int:
        return len(await self.box.take())


class Packed(Plain):
    seen = rc.Topic(bytes, compress=True)
    box = rc.Inbox(bytes, compress=True)

    @rc.service(compress=True)
    async def echo(self, page: bytes) -> bytes:
        return page

    @rc.task(progress=bytes, compress=True)
    async def work(self, page: bytes) -> bytes:
        return await super().work(page)

    @rc.stream(compress=True)
    async def pages(self, page: bytes) -> AsyncIterator[bytes]:
        yield page


class Reader(rc.Role):
    plain: Plain = rc.one()
    packed: Packed = rc.one()

    async def echo(self, role: Any) -> list[bytes]:
        return [await role.echo(PAGE)]

    async def work(self, role: Any) -> list[bytes]:
        handle = await role.work.start(PAGE)
        return [report async for report in handle] + [await handle.result()]

    async def pages(self, role: Any) -> list[bytes]:
        return [page async for page in role.pages(PAGE)]

    async def put(self, role: Any) -> list[bytes]:
        await role.box.put(PAGE)
        assert await role.taken() == len(PAGE)
        return [PAGE]

    async def hear(self, role: Any) -> list[bytes]:
        async with role.seen.subscribe() as events:
            await role.tell()
            return [(await anext(aiter(events)))[1]]


APP = rc.App(
    name="compression",
    nodes={"a": rc.Node(), "b": rc.Node()},
    roles={
        "a": {"reader": rc.RoleSpec(class_=Reader)},
        "b": {"plain": rc.RoleSpec(class_=Plain), "packed": rc.RoleSpec(class_=Packed)},
    },
    relationships={"a": {"plain": "b/plain", "packed": "b/packed"}},
    until="stopped",
)


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("way", "times"), [("echo", 2), ("work", 3), ("pages", 2), ("put", 1), ("hear", 1)]
)  # so often does the page travel
async def test_what_is_compressed_is_small_on_its_way_and_arrives(way: str, times: int) -> None:
    sizes = []
    async with rc.simulation(APP, trace=True) as sim:
        reader = sim.role("a/reader")
        for role in (reader.plain, reader.packed):
            before = len(sim.packets)
            assert set(await getattr(reader, way)(role)) == {PAGE}
            sizes.append(sum(packet.size_bytes for packet in sim.packets[before:]))
    plain, packed = sizes
    assert plain > times * len(PAGE)
    assert packed < plain / 20
