"""Roles for tests of the conductor, whose nodes are all in one process: they share `SEEN` and `GATE` with the test."""

from __future__ import annotations

import anyio
import msgspec

import rolecall as rc

SEEN: list[str] = []
GATE: list[anyio.Event] = []


class Word(msgspec.Struct, frozen=True):
    """What parts say."""

    text: str = ""


class Speaker(rc.Role):
    """Says something."""

    said = rc.Topic(Word)


class Part(Speaker):
    """One of several equal roles; `does` says what is special about it."""

    parts: rc.Group[Part] = rc.many()
    state = rc.State(Word)

    def __init__(self, does: str = "") -> None:
        self.does = does
        if does == "fail to be made":
            raise TypeError("it takes no such option")

    async def setup(self) -> None:
        SEEN.append(f"{self.id} is set up")
        if self.does == "wait in setup":
            await GATE[0].wait()

    async def teardown(self) -> None:
        self.log(torn_down=1)
        if self.does == "wait in teardown":
            await anyio.sleep_forever()

    @parts.on(Speaker.said)
    async def heard(self, who: rc.RoleId, word: Word) -> None:
        SEEN.append(f"{self.id} heard {who}: {word.text}")

    @rc.task
    async def run(self, text: str = "hello") -> Word:
        SEEN.append(f"{self.id} runs")
        await self.said.emit(Word(text))
        if self.does == "wait":
            await GATE[0].wait()
        self.state = Word(text)
        return Word(text)

    @rc.service
    async def members(self) -> list[rc.RoleId]:
        return list(self.parts)

    @rc.service
    async def ask(self, role: rc.RoleId) -> list[rc.RoleId]:
        return await self.parts[role].members()

    @rc.service
    async def log_nonsense(self) -> None:
        self.log(fine=1)
        self.log(nonsense=object())  # type: ignore[arg-type]
        self.log(fine=2)
