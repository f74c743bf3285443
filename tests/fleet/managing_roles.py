"""Roles that manage nodes: what they see is the same on every engine."""

from __future__ import annotations

import anyio
import msgspec
import numpy as np

import rolecall as rc
from rolecall.fleet.node_role import Contact


class Count(msgspec.Struct):
    """What an adder has added."""

    sum: rc.Tensors | None = None


class Adder(rc.Role):
    """Adds what it is given, from `start` on; fails where it is told to."""

    peers: rc.Group[Adder] = rc.many()
    state = rc.State(Count)

    def __init__(self, start: int = 0, fails: str = "") -> None:
        self.start, self.fails = start, fails

    async def setup(self) -> None:
        if self.fails == "setup":
            raise ValueError("no luck")
        self.state = Count(rc.Tensors({"sum": np.full(1, self.start, np.int64)}))

    async def main(self) -> None:
        self.log(begun=self.start)
        if self.fails == "main":
            raise ValueError("no luck in main")

    @rc.service
    async def add(self, number: int) -> int:
        self.start += number
        self.state = Count(rc.Tensors({"sum": np.full(1, self.start, np.int64)}))
        return self.start

    @rc.service
    async def friends(self) -> list[rc.RoleId]:
        return list(self.peers)


class Lead(rc.Role):
    """Has workers assigned to nodes, and notes what comes of it."""

    nodes: rc.Group[rc.NodeRole] = rc.many()
    workers: rc.Group[Adder] = rc.many()

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.statuses: list[str] = []
        self.joined: list[str] = []
        self.left = anyio.Event()

    @nodes.on(rc.NodeRole.changed)
    async def on_changed(self, node: rc.RoleId, change: rc.RoleStatus) -> None:
        if change.role == "w1/worker":
            self.statuses.append(change.status)

    @workers.on_join
    async def on_join(self, who: rc.RoleId) -> None:
        self.joined.append(who)

    @workers.on_leave
    async def on_leave(self, who: rc.RoleId) -> None:
        self.left.set()

    def node(self, name: str) -> rc.NodeRole:
        return self.nodes[rc.RoleId(f"{name}/node")]

    async def tried(self, spec: rc.RoleSpec, name: str, on: str = "w1") -> str:
        try:
            await self.node(on).assign(spec, name)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "assigned"

    @rc.task
    async def run(self) -> list[str]:
        first = await self.node("w1").assign(rc.RoleSpec(Adder, options={"start": 10}), name="worker")
        await self.node("w2").assign(rc.RoleSpec(Adder), "worker", {"peers": ["w1/worker", "lead/lead"]}, start=False)
        await self.node("w2").start(rc.RoleId("w2/worker"))
        self.notes += [first, *self.workers]
        self.notes += [str(sum_) for sum_ in (await self.workers.call(Adder.add, 1)).values()]
        await self.relating()
        await self.refused()
        await self.stopping()
        return self.notes

    async def relating(self) -> None:
        one, two = self.workers
        self.notes += [f"w2 knows {', '.join(await self.workers[two].friends())}"]
        await self.node("w2").relate("peers", ["*/worker"], two)
        self.notes += [f"w2 knows {', '.join(await self.workers[two].friends())}"]
        await self.node("w1").relate("all", ["lead/lead"])
        await self.node("w1").alias("peers", "all", one)
        self.notes += [f"w1 knows {', '.join(await self.workers[one].friends())}"]

    async def refused(self) -> None:
        self.notes += [await self.tried(rc.RoleSpec(Adder), "worker")]
        self.notes += [await self.tried(rc.RoleSpec(Adder), "no/name")]
        self.notes += [await self.tried(rc.RoleSpec(Adder, options={"begin": 1}), "other")]
        self.notes += [await self.tried(rc.RoleSpec("managing_roles:Ader"), "other")]
        self.notes += [await self.tried(rc.RoleSpec(Adder, options={"fails": "setup"}), "unlucky")]
        info = await self.node("w1").status()
        self.notes += [f"{role.role} {role.class_} {role.status}" for role in info.roles if role.role.name != "node"]
        self.notes += [f"{role.role} {role.status}: {role.why}" for role in info.ended]
        self.notes += [info.application or "none", str(info.counters["roles_ended"])]

    async def stopping(self) -> None:
        one = rc.RoleId("w1/worker")
        await self.node("w1").pause(one)
        await self.node("w1").resume(one)
        self.notes += [str(await self.node("w1").call(one, "add", {"number": 5}))]
        await self.node("w1").stop(one)
        await self.left.wait()
        self.notes += ["left", *self.workers]
        again = await self.node("w1").assign(rc.RoleSpec(Adder, options={"start": 20}), name="worker")
        self.notes += [str(await self.workers[again].add(1)), ", ".join(self.joined), ", ".join(self.statuses)]


class Census(rc.Role):
    """Asks nodes whom they know, and introduces one to another."""

    nodes: rc.Group[rc.NodeRole] = rc.many()

    def __init__(self) -> None:
        self.met: list[str] = []
        self.news = anyio.Event()

    @nodes.on(rc.NodeRole.met)
    async def on_met(self, node: rc.RoleId, contact: Contact) -> None:
        self.met.append(f"{node.home} met {contact.node} at {contact.address}")
        self.news.set()

    @rc.task
    async def run(self) -> list[str]:
        one = self.nodes[rc.RoleId("w1/node")]
        known = await one.contacts()
        linked = [link.node for link in (await one.status()).links if link.connected]
        await one.meet({"elsewhere": "127.0.0.1:1"})
        await self.news.wait()
        return [*sorted(known), "linked", *sorted(linked), *self.met, *sorted(await one.contacts())]


class Hirer(rc.Role):
    """Has one role assigned to another node, and waits."""

    nodes: rc.Group[rc.NodeRole] = rc.many()

    def __init__(self, fails: str = "", on_failure: str | None = None, role: str = "managing_roles:Adder") -> None:
        self.spec = rc.RoleSpec(role, options={"fails": fails} if fails else {}, on_failure=on_failure)  # type: ignore[arg-type]

    @rc.task
    async def run(self) -> str:
        await self.nodes[rc.RoleId("w1/node")].assign(self.spec, "worker")
        self.log(hired=1)
        await anyio.sleep(0.2)
        return "went on"


class Picky(rc.Role):
    """Has a role assigned that is not to be had."""

    nodes: rc.Group[rc.NodeRole] = rc.many()

    @rc.task
    async def run(self) -> str:
        class Local(Adder): ...

        try:
            await self.nodes[rc.RoleId("w1/node")].assign(rc.RoleSpec(Local), "worker")
        except rc.ConfigError as error:
            return str(error)
        return "assigned"
