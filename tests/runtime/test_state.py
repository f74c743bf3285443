from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import rolecall as rc
from rolecall.runtime.instance import Hosting
from rolecall.runtime.snapshots import load_snapshot, save_snapshot


class Point(msgspec.Struct, frozen=True):
    x: float
    y: float


class Progress(msgspec.Struct):
    round: int = 0
    params: rc.Tensors | None = None
    history: list[float] = []
    buffer: Any = np.zeros(2)


class Trainer(rc.Role):
    state = rc.State(Progress)

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.where = Point(0.0, 0.0)

    async def setup(self) -> None:
        self.seen.append(f"setup at round {self.state.round}")

    @rc.service
    async def step(self, loss: float) -> int:
        self.state.round += 1
        self.state.params = rc.Tensors({"w": np.full(3, self.state.round, np.float32)})
        self.state.history.append(loss)
        self.state.buffer += loss
        self.where = Point(loss, -loss)
        return self.state.round

    def snapshot(self) -> Point:
        return self.where

    def restore(self, snapshot: Point) -> None:
        self.seen.append("restore")
        self.where = snapshot


class Peers(rc.Role):
    all: rc.Group[Trainer] = rc.many()


def hosting(cls: type[rc.Role], snapshot: Any) -> Hosting:
    return Hosting(id=rc.RoleId("a/again"), role_class=cls, snapshot=snapshot)


async def test_a_state_starts_fresh_and_is_shared_with_nobody(world) -> None:
    async with world() as w:
        first, second = await w.role("a/first", Trainer), await w.role("a/second", Trainer)
        await first.step(0.5)
        assert (second.state.round, second.state.history) == (0, [])
        np.testing.assert_array_equal(second.state.buffer, np.zeros(2))
        third = await w.role("a/third", Trainer)
        np.testing.assert_array_equal(third.state.buffer, np.zeros(2))


async def test_a_state_of_another_type_is_refused(world) -> None:
    async with world() as w:
        role = await w.role("a/trainer", Trainer)
        role.state = Progress(3)
        assert role.state.round == 3
        with pytest.raises(rc.WrongType, match=r"Trainer\.state: expected Progress, found Point"):
            role.state = Point(1, 2)


async def test_a_role_goes_on_from_the_file_another_left(world, tmp_path: Path) -> None:
    file = tmp_path / "trainer.safetensors"
    async with world() as w:
        first = await w.role("a/first", Trainer)
        await first.step(0.5)
        await first.step(0.25)
        await asyncio.to_thread(save_snapshot, file, w.instance("a/first").snapshot())
        instance = w.nodes["a"].host(hosting(Trainer, await asyncio.to_thread(load_snapshot, file, Trainer)))
        await instance.start()
        again = instance.role
        assert again.state.round == 2 and again.state.history == [0.5, 0.25]
        assert again.state.params == first.state.params
        np.testing.assert_array_equal(again.state.buffer, [0.75, 0.75])
        assert again.where == Point(0.25, -0.25)
        assert again.seen == ["restore", "setup at round 2"]
        assert await again.step(0.1) == 3


async def test_a_snapshot_is_a_copy_both_ways(world) -> None:
    async with world() as w:
        first = await w.role("a/first", Trainer)
        await first.step(0.5)
        snapshot = w.instance("a/first").snapshot()
        await first.step(0.25)
        assert (snapshot.state.round, snapshot.state.history, snapshot.extra) == (1, [0.5], Point(0.5, -0.5))
        instance = w.nodes["a"].host(hosting(Trainer, snapshot))
        await instance.start()
        await instance.role.step(0.1)
        assert (snapshot.state.round, snapshot.state.history) == (1, [0.5])


async def test_draws_go_on_where_they_were(world) -> None:
    async with world(all="a/t*") as w:
        for number in range(8):
            await w.role(f"a/t{number}", Trainer)
        peers = await w.role("a/peers", Peers)
        first = [peers.all.choice().id for _ in range(3)]
        snapshot = w.instance("a/peers").snapshot()
        then = [peers.all.choice().id for _ in range(5)]
        await w.instance("a/peers").stop()
        again = w.nodes["a"].host(Hosting(id=rc.RoleId("a/peers"), role_class=Peers, snapshot=snapshot))
        await again.start()
        assert [again.role.all.choice().id for _ in range(5)] == then
        assert first != then


async def test_a_role_without_state_has_a_snapshot_all_the_same(world, tmp_path: Path) -> None:
    async with world() as w:
        await w.role("a/peers", Peers)
        await asyncio.to_thread(save_snapshot, tmp_path / "peers", w.instance("a/peers").snapshot())
    loaded = await asyncio.to_thread(load_snapshot, tmp_path / "peers", Peers)
    assert (loaded.state, loaded.extra) == (None, None)


async def test_a_snapshot_of_another_role_is_refused(world, tmp_path: Path) -> None:
    async with world() as w:
        await w.role("a/trainer", Trainer)
        snapshot = w.instance("a/trainer").snapshot()
        await asyncio.to_thread(save_snapshot, tmp_path / "trainer", snapshot)
        with pytest.raises(rc.WrongType, match=r"trainer\.(state|extra): expected None, found dict"):
            await asyncio.to_thread(load_snapshot, tmp_path / "trainer", Role)
        instance = w.nodes["a"].host(hosting(Role, snapshot))
        with pytest.raises(rc.ConfigError, match=r"a/again: it cannot be restored: .*Progress, not None"):
            await instance.start()


class Role(rc.Role):
    """Has nothing to keep."""


def test_a_missing_snapshot_is_an_error_of_data(tmp_path: Path) -> None:
    with pytest.raises(rc.DataError, match="nowhere"):
        load_snapshot(tmp_path / "nowhere", Trainer)


def test_what_is_no_struct_is_no_state() -> None:
    with pytest.raises(rc.DeclarationError, match=r"dict is no msgspec\.Struct"):
        rc.State(dict)  # type: ignore[type-var]


def test_a_state_that_cannot_start_empty_is_found_with_the_class() -> None:
    from rolecall.core.declarations import declarations

    class Needy(rc.Role):
        state = rc.State(Point)

    with pytest.raises(rc.DeclarationError, match=r"Needy\.state: Point cannot start empty"):
        declarations(Needy)


class Probe(rc.Extension):
    """Counts beside whatever role it extends, in a state of its own."""

    counts = rc.State(Progress)

    @rc.service
    async def probe(self) -> int:
        self.counts.round += 1
        return self.counts.round


async def test_a_role_and_its_extension_have_each_their_state(world) -> None:
    from rolecall.core.declarations import combined

    both = combined(Trainer, (Probe,))
    async with world() as w:
        first = w.nodes["a"].host(Hosting(id=rc.RoleId("a/first"), role_class=both))
        await first.start()
        await first.role.step(0.5)
        await first.role.probe()
        await first.role.probe()
        taken = first.snapshot()
        assert (taken.state.state.round, taken.state.counts.round) == (1, 2)
        second = w.nodes["a"].host(Hosting(id=rc.RoleId("a/second"), role_class=both, snapshot=taken))
        await second.start()
        assert (second.role.state.round, second.role.counts.round) == (1, 2)
        await second.role.probe()
        assert first.role.counts.round == 2
