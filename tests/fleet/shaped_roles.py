"""Roles that measure how far another node is."""

from __future__ import annotations

import anyio

import rolecall as rc


class Echo(rc.Role):
    """Answers."""

    @rc.service
    async def echo(self, number: int) -> int:
        return number


class Asker(rc.Role):
    """Logs the shortest of some round trips to another node."""

    echo: Echo = rc.one()

    async def main(self) -> None:
        found = []
        for number in range(6):
            began_s = anyio.current_time()
            await self.echo.echo(number)
            found.append(anyio.current_time() - began_s)
        self.log(rtt_s=min(found))
