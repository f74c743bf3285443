"""The process that `test_killed.py` kills: a node with a role that answers late, or never."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator

import rolecall as rc
from rolecall.runtime.instance import Hosting
from rolecall.runtime.links import Links
from rolecall.runtime.network import Network
from rolecall.runtime.node import Node


class Victim(rc.Role):
    box = rc.Inbox(int, capacity=1)

    def __init__(self) -> None:
        self.kept: deque[rc.Tensors] = deque(maxlen=3)

    @rc.service(concurrent=True)
    async def echo(self, body: bytes) -> bytes:
        return body

    @rc.service(concurrent=True)
    async def exchange(self, model: rc.Tensors) -> rc.Tensors:
        self.kept.append(model)
        return model

    @rc.service(mailbox=2)
    async def never(self) -> None:
        await asyncio.Event().wait()

    @rc.stream(concurrent=True)
    async def numbers(self) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0)

    @rc.task(concurrent=True)
    async def work(self) -> None:
        await asyncio.Event().wait()


async def main() -> None:
    """Serve until killed."""
    node = Node("a")
    async with Links(node, secret=b"a secret of one run") as links, node:
        network = node.network
        assert isinstance(network, Network)
        network.bind(rc.RoleId("b/witness"), "b")
        await node.host(Hosting(id=rc.RoleId("a/victim"), role_class=Victim, options={})).start()
        sys.stdout.write(f"{await links.exchange.listen()}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
