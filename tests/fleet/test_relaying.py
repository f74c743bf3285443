"""Nodes that nobody can dial: in every role of federated averaging, alone among others and all of them."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rolecall as rc
from rolecall.core.records import Metric, Record
from rolecall.fleet.access import Access
from rolecall.fleet.relaying import Parcel, Relays
from rolecall.fleet.standing_node import StandingNode, StandingNodeConfig
from rolecall.wire.frame_codec import decode_frame, encode_frame
from rolecall.wire.frames import Cancel, Goodbye
from rolecall.wire.limits import LimitExceeded, LinkOverflow, Malformed

HERE = Path(__file__).parent
NAMES = ("server", "chooser", "adder", "client1", "client2")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Give nodes and conductor a secret, and the conductor an address."""
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("what all nodes of this test know")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{found.getsockname()[1]}"
    monkeypatch.setenv("ROLECALL_SECRET_FILE", str(secret))
    monkeypatch.setenv("ROLECALL_LISTEN", at)
    yield at


@asynccontextmanager
async def standing(
    *names: str, hidden: tuple[str, ...], access: Access, at: str | None = None
) -> AsyncIterator[dict[str, str | None]]:
    """Start nodes in this process; those that are hidden join the conductor, the others listen."""
    addresses: dict[str, str | None] = {}
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for name in names:
            heard = anyio.Event()

            def announce(address: str | None, name: str = name, heard: anyio.Event = heard) -> None:
                addresses[name] = address
                heard.set()

            config = StandingNodeConfig(
                name=name,
                listen=None if name in hidden else at or "127.0.0.1:0",
                join=access.listen if name in hidden else None,
                access=access,
                packages=("relaying_roles",),
            )
            tasks.start_soon(StandingNode(config, announce).serve, stop)
            await heard.wait()
        try:
            yield addresses
        finally:
            stop.set()


def federated(addresses: dict[str, str | None], rounds: int = 3, later: tuple[str, ...] = ()) -> rc.App:
    """Return federated averaging with each role on a node of its own."""
    model = rc.ElementSpec("relaying_roles:Line")
    return rc.App(
        name="federated",
        seed=3,
        nodes={
            name: rc.Node(address=address, join="later" if name in later else "start")
            for name, address in addresses.items()
        },
        roles={
            "server": {
                "coordinator": rc.RoleSpec(
                    "rolecall.architectures.fedavg:Coordinator",
                    options={"rounds": rounds, "quorum": 0.5 if later else 1.0},
                    elements={"model": model},
                )
            },
            "chooser": {"selector": rc.RoleSpec("rolecall.architectures.fedavg:RandomSelector")},
            "adder": {"aggregator": rc.RoleSpec("rolecall.architectures.fedavg:Aggregator")},
            "client*": {
                "trainer": rc.RoleSpec(
                    "rolecall.architectures.fedavg:Trainer",
                    elements={"model": model, "data": rc.ElementSpec("relaying_roles:Points")},
                    on_failure="continue",
                )
            },
        },
        relationships={
            "server": {
                "trainers": "client*/trainer", "selector": "chooser/selector", "aggregator": "adder/aggregator",
            }
        },
        start="server/coordinator.run",
    )  # fmt: skip


@pytest.mark.may_block("nodes in this process read their secret, which is a small file")
@pytest.mark.parametrize("hidden", [*((name,) for name in NAMES), ("server", "client2"), NAMES], ids="+".join)
async def test_nodes_that_nobody_can_dial_take_every_part(hidden: tuple[str, ...]) -> None:
    access = Access.of()
    async with standing(*NAMES, hidden=hidden, access=access) as addresses:
        app = federated(addresses)
        history = await rc.run(app, engine="nodes")
    assert [metric.values["clients"] for metric in history.metrics if "clients" in metric.values] == [2, 2, 2]
    assert history.digest == (await rc.run(app)).digest


# ---------------------------------------------------------------------------------------------- come and go


class Watched:
    """Counts how many clients took part in each round, and waits for a number of them."""

    def __init__(self) -> None:
        self.stop = anyio.Event()
        self._clients, self._news = 0, anyio.Event()

    def record(self, record: Record) -> None:
        if isinstance(record, Metric) and "clients" in record.values:
            self._clients = int(record.values["clients"])
            self._news.set()

    async def until(self, clients: int) -> None:
        with anyio.fail_after(20):
            while self._clients != clients:
                self._news = anyio.Event()
                await self._news.wait()


@pytest.mark.may_block("nodes in this process read their secret, which is a small file")
@pytest.mark.parametrize("hidden", [(), ("client2",)], ids=["found", "joins"])
async def test_a_node_that_somebody_starts_later_is_selected_and_again_when_it_is_restarted(
    hidden: tuple[str, ...], unused_port: int
) -> None:
    access, watched = Access.of(), Watched()
    later = None if hidden else f"127.0.0.1:{unused_port}"
    async with standing(*NAMES[:-1], hidden=(), access=access) as addresses:
        app = federated({**addresses, "client2": later}, rounds=1_000_000, later=("client2",))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                partial(rc.run, app, engine="nodes", observers=[watched.record], stop=watched.stop), name="run"
            )
            await watched.until(1)
            for _ in range(2):
                async with standing("client2", hidden=hidden, access=access, at=later):
                    await watched.until(2)
                await watched.until(1)
            watched.stop.set()


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


# ---------------------------------------------------------------------------------------------- by themselves


class Fake:
    """What `Relays` needs of a network: it notes what comes and who joins."""

    def __init__(self) -> None:
        self.came: list[Any] = []
        self.joined: list[str] = []

    def join(self, peer: str, link: Any) -> None:
        self.joined.append(peer)
        link.on_frame = lambda frame, payload: self.came.append((peer, frame, [bytes(part) for part in payload]))


class Pair:
    """Relays of one node, and what they have carried to another one's."""

    def __init__(self, tasks: Any) -> None:
        self.network, self.carried, self.lost = Fake(), list[list[Parcel]](), list[tuple[str, str]]()
        self.gate, self.error = anyio.Event(), None
        self.other = Fake()
        self.there = Relays(self.other, self.carry, lambda run, name: None, lambda peer, why: None)  # type: ignore[arg-type]
        self.here = Relays(
            self.network,  # type: ignore[arg-type]
            self.carry,
            lambda run, name: tasks.start_soon(run, name=name),
            lambda peer, why: self.lost.append((peer, why)),
        )

    error: Exception | None

    async def carry(self, peer: str, parcels: list[Parcel]) -> None:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.carried.append(parcels)
        self.there.taken("here", parcels)


async def test_what_waits_is_carried_together_and_in_order() -> None:
    async with anyio.create_task_group() as tasks:
        pair = Pair(tasks)
        pair.here.open("there")
        pair.here.open("there")
        relay = pair.here._relays["there"]
        for number in range(100):
            relay.send(Cancel(number), [b"x" * number])
            if number == 0:
                await anyio.wait_all_tasks_blocked()
        pair.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert [len(parcels) for parcels in pair.carried] == [1, 99]
        assert pair.other.came == [("here", Cancel(number), [b"x" * number]) for number in range(100)]
        assert (pair.network.joined, pair.other.joined) == (["there"], ["here"])
        pair.here.close("there")
        assert "there" not in pair.here


async def test_too_much_is_refused_and_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rolecall.fleet.relaying.WAITING_BYTES", 10)
    async with anyio.create_task_group() as tasks:
        pair, room = Pair(tasks), list[int]()
        pair.here.open("there")
        relay = pair.here._relays["there"]
        relay.send(Cancel(1), [b"x" * 9])
        with pytest.raises(LinkOverflow, match="there"):
            relay.send(Cancel(2), [b"xx"])
        relay.when_room(lambda: room.append(1))
        pair.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert room == [1]
        relay.send(Cancel(2), [b"xx"])
        await anyio.wait_all_tasks_blocked()
        assert [frame.id for _, frame, _ in pair.other.came] == [1, 2]
        pair.here.close("there")


async def test_a_node_that_nothing_can_be_carried_to_is_lost() -> None:
    async with anyio.create_task_group() as tasks:
        pair = Pair(tasks)
        pair.error = rc.NodeLost("there/node", "it was switched off", "none")
        pair.here.open("there")
        pair.here._relays["there"].send(Cancel(1))
        pair.gate.set()
        await anyio.wait_all_tasks_blocked()
        assert [peer for peer, _ in pair.lost] == ["there"] and "switched off" in pair.lost[0][1]
        assert "there" not in pair.here


@given(st.binary(max_size=200) | st.just(encode_frame(Goodbye("x"))))
def test_what_is_no_frame_is_refused(encoded: bytes) -> None:
    try:
        frame = decode_frame(encoded)
    except (Malformed, LimitExceeded):
        return
    assert decode_frame(encode_frame(frame)) == frame
