"""Every kind of channel, between a workshop that makes things and a customer who orders them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import msgspec

import rolecall as rc


class Made(msgspec.Struct, frozen=True):
    item: str
    number: int


class Workshop(rc.Role):
    made = rc.Topic(Made)
    notes = rc.Inbox(str)

    @rc.service
    async def price(self, item: str, pieces: int = 1) -> int:
        return 10 * len(item) * pieces

    @rc.stream
    async def catalogue(self, material: str) -> AsyncIterator[str]:
        for thing in ("chair", "table", "bed"):
            yield f"{material} {thing}"

    @rc.task(progress=float)
    async def make(self, item: str, pieces: int) -> str:
        for number in range(1, pieces + 1):
            await self.made.emit(Made(item, number))
            rc.progress(number / pieces)
        return f"{pieces} x {item} for {rc.caller()}"

    async def main(self) -> None:
        self.log(note=await self.notes.take())


class Customer(rc.Role):
    workshop: Workshop = rc.one()

    def __init__(self, pieces: int) -> None:
        self.pieces, self.enough = pieces, anyio.Event()

    @rc.on("workshop", Workshop.made, where={"number__ge": rc.attribute("pieces")})  # a topic, handled
    async def seen(self, source: rc.RoleId, event: Made) -> None:
        self.enough.set()

    @rc.task
    async def shop(self) -> str:
        async for item in self.workshop.catalogue("oak"):  # a stream
            self.log(item=item, price=await self.workshop.price(item, self.pieces))  # a service
        async with self.workshop.made.subscribe() as events:  # a topic, taken when it suits
            order = await self.workshop.make.start("oak bed", self.pieces)  # a task
            async for progress in order:
                self.log(progress=progress)
            for _, event in events.drain():
                self.log(made=event.item, number=event.number)
        await self.enough.wait()
        await self.workshop.notes.put("well done")  # an inbox
        return await order


app = rc.App(
    name="channels",
    nodes={"village": rc.Node(), "town": rc.Node()},
    roles={"village": {"workshop": rc.RoleSpec(Workshop)}, "town": {"customer": rc.RoleSpec(Customer, {"pieces": 2})}},
    relationships={"town": {"workshop": "village/workshop"}},
    start="town/customer.shop",
)

if __name__ == "__main__":
    history = rc.run_sync(app)
    lines = [f"{metric.role} {metric.values}" for metric in history.metrics]
    print(*lines, history.returned, sep="\n")  # noqa: T201 - this is a script
