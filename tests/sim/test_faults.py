"""Faults: how they are written, read, begun and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import ConfigError
from rolecall.sim.faults import Crash, Cut, DiskFull, Fault, Heal, Isolate, Partition, Pause, Restart, Skew, Slow
from rolecall.sim.injecting import Injector
from rolecall.sim.loop import VirtualLoop
from rolecall.sim.schedule import At, Schedule, Timed
from rolecall.sim.simulate import simulate


class World:
    """Writes down what is done to it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.done: list[tuple[Any, ...]] = []
        self.told: list[tuple[str, str]] = []
        self.injector = Injector(self, loop, lambda what, fault: self.told.append((what, str(fault))))
        self._tokens = 0

    def _note(self, *what: Any) -> None:
        self.done.append((round(self.loop.now_s(), 6), *what))

    def crash(self, node: str, *, how: str) -> None:
        self._note("crash", node, how)

    def restart(self, node: str, *, state: str) -> None:
        self._note("restart", node, state)

    def pause(self, node: str) -> None:
        self._note("pause", node)

    def resume(self, node: str) -> None:
        self._note("resume", node)

    def slow(self, node: str, factor: float) -> None:
        self._note("slow", node, factor)

    def skew(self, node: str, offset_s: float, rate: float) -> None:
        self._note("skew", node, offset_s, rate)

    def fill_disk(self, node: str, free_bytes: int | None) -> None:
        self._note("disk", node, free_bytes)

    def cut(self, a: str, b: str, *, both: bool, how: str) -> int:
        return self._severed("cut", a, b, both, how)

    def isolate(self, node: str, *, how: str) -> int:
        return self._severed("isolate", node, how)

    def partition(self, groups: Iterable[Iterable[str]], *, how: str) -> int:
        return self._severed("partition", groups, how)

    def _severed(self, *what: Any) -> int:
        self._note(*what)
        self._tokens += 1
        return self._tokens

    def mend(self, token: int) -> None:
        self._note("mend", token)

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        self._note("heal", a, b)


def in_world(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(World())

    simulate(main)


def scripted(script: Callable[[Callable[[float], At]], object]) -> list[tuple[Any, ...]]:
    """Return what a script does to a world."""
    done: list[tuple[Any, ...]] = []

    async def test(world: World) -> None:
        script(lambda at_s: At(at_s, lambda timed: world.injector.at(timed.at_s, timed.fault)))
        await asyncio.sleep(100)
        done.extend(world.done)

    in_world(test)
    return done


def test_a_script_says_what_goes_wrong_when() -> None:
    assert scripted(lambda at: at(3.0).cut("a", "b").crash("c") and at(1.0).skew("a", 5.0)) == [
        (1.0, "skew", "a", 5.0, 1.0),
        (3.0, "cut", "a", "b", True, "reset"),
        (3.0, "crash", "c", "silence"),
    ]


def test_what_has_a_length_ends() -> None:
    assert scripted(lambda at: at(1.0).cut("a", "b", for_s=2.0, both=False, how="silence")) == [
        (1.0, "cut", "a", "b", False, "silence"),
        (3.0, "mend", 1),
    ]
    assert scripted(lambda at: at(1.0).partition(["a"], ["b", "c"], for_s=1).isolate("a", for_s=2)) == [
        (1.0, "partition", (("a",), ("b", "c")), "reset"),
        (1.0, "isolate", "a", "reset"),
        (2.0, "mend", 1),
        (3.0, "mend", 2),
    ]
    assert scripted(lambda at: at(1.0).cut("a", "b") and at(2.0).heal("a")) == [
        (1.0, "cut", "a", "b", True, "reset"),
        (2.0, "heal", "a", None),
    ]


def test_a_crash_and_a_return() -> None:
    assert scripted(lambda at: at(1).crash("a", for_s=2, state="kept") and at(2).crash("a", for_s=9)) == [
        (1.0, "crash", "a", "silence"),
        (3.0, "restart", "a", "kept"),
    ]
    assert scripted(lambda at: at(1).crash("a", for_s=4) and at(2).restart("a") and at(3).crash("a", for_s=5)) == [
        (1.0, "crash", "a", "silence"),
        (2.0, "restart", "a", "none"),
        (3.0, "crash", "a", "silence"),  # the end of the first crash, at 5.0, is no longer its business
        (8.0, "restart", "a", "none"),
    ]
    assert scripted(lambda at: at(1).restart("a")) == []


def test_what_overlaps_lasts_until_the_last_has_ended() -> None:
    assert scripted(lambda at: at(1).pause("a", for_s=2) and at(2).pause("a", for_s=3)) == [
        (1.0, "pause", "a"),
        (5.0, "resume", "a"),
    ]
    assert scripted(lambda at: at(1).slow("a", 2.0, for_s=3) and at(2).slow("a", 5.0, for_s=1)) == [
        (1.0, "slow", "a", 2.0),
        (2.0, "slow", "a", 10.0),
        (3.0, "slow", "a", 2.0),
        (4.0, "slow", "a", 1.0),
    ]
    assert scripted(lambda at: at(1).disk_full("a", free_bytes=9, for_s=3) and at(2).disk_full("a", for_s=1)) == [
        (1.0, "disk", "a", 9),
        (2.0, "disk", "a", 0),
        (3.0, "disk", "a", 9),
        (4.0, "disk", "a", None),
    ]


def test_what_happens_is_told() -> None:
    async def test(world: World) -> None:
        Schedule((Timed(1.0, Crash("a", 2.0)), Timed(0.5, Heal()))).start(world.injector)
        await asyncio.sleep(2)
        assert world.injector.down == ["a"]
        await asyncio.sleep(2)
        assert world.injector.down == []
        crash = "crash a none silence for 2 s"
        assert world.told == [("begin", "heal"), ("begin", crash), ("end", crash)]

    in_world(test)


names = st.sampled_from(["a", "b", "c"])
lengths = st.none() | st.floats(0.001, 10)
hows = st.sampled_from(["reset", "silence"])
faults: st.SearchStrategy[Fault] = st.one_of(
    st.builds(Crash, names, lengths, st.sampled_from(["kept", "none"]), hows),
    st.builds(Restart, names),
    st.builds(Pause, names, lengths),
    st.builds(Slow, names, st.floats(1, 100), lengths),
    st.builds(Skew, names, st.floats(-10, 10), st.floats(0.5, 2)),
    st.builds(Cut, names, st.just("d"), lengths, st.booleans(), hows),
    st.builds(Isolate, names, lengths, hows),
    st.builds(Partition, st.just((("a",), ("b", "c"))), lengths, hows),
    st.builds(Heal, st.none() | names, st.none() | names),
    st.builds(DiskFull, names, lengths, st.integers(0, 1_000)),
)
schedules = st.lists(st.builds(Timed, st.floats(0, 100), faults), max_size=10).map(lambda timed: Schedule(tuple(timed)))


@given(schedules)
def test_a_schedule_is_the_same_when_read_again(schedule: Schedule) -> None:
    assert Schedule.from_json(schedule.to_json()) == schedule
    assert [timed.at_s for timed in schedule.faults] == sorted(timed.at_s for timed in schedule.faults)
    assert len(str(schedule).splitlines()) == max(len(schedule.faults), 1)


def test_a_schedule_in_a_file(tmp_path: Path) -> None:
    file, schedule = tmp_path / "faults.json", Schedule((Timed(3.0, Cut("a", "b")), Timed(1.0, Crash("c"))))
    schedule.save(file)
    assert Schedule.load(file) == schedule
    assert file.read_text() == (
        '[{"at_s":1.0,"fault":{"kind":"crash","node":"c"}},{"at_s":3.0,"fault":{"kind":"cut","a":"a","b":"b"}}]\n'
    )
    with pytest.raises(ConfigError, match="cannot be read"):
        Schedule.load(tmp_path / "nowhere")
    file.write_text('[{"at_s": 1, "fault": {"kind": "crsh"}}]')
    with pytest.raises(ConfigError, match=r"faults\.json: this is no schedule of faults: Invalid value 'crsh'"):
        Schedule.load(file)


def test_a_fault_of_a_node_that_is_not_there() -> None:
    schedule = Schedule().with_(Timed(1.0, Cut("client1", "sever")), Timed(2.0, Heal()))
    schedule.check(["client1", "sever"])
    with pytest.raises(ConfigError, match=r"`cut client1 - sever \(reset\)`: .* 'sever'\. Did you mean 'server'\?"):
        schedule.check(["client1", "server"])
    with pytest.raises(ConfigError, match="no node 'c'"):
        Schedule((Timed(0.0, Partition((("a",), ("b", "c")))),)).check(["a", "b"])


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Slow("a", 0), r"fault `slow a 0`: factor is 0\. Give a number above 0"),
        (lambda: Skew("a", rate=-1.0), r"rate is -1\.0"),
        (lambda: Skew("a", float("inf")), r"offset_s is inf"),
        (lambda: Pause("a", for_s=-1), r"for_s is -1\. Give seconds, from 0 on"),
        (lambda: DiskFull("a", free_bytes=-1), r"free_bytes is -1"),
        (lambda: Crash("a", how="slowly"), r"how is 'slowly'\. Give 'reset' or 'silence'"),  # type: ignore[arg-type]
        (lambda: Restart("a", state="some"), r"state is 'some'\. Give 'kept' or 'none'"),  # type: ignore[arg-type]
        (lambda: Cut("a", "a"), r"a node has no link to itself"),
        (lambda: Schedule.from_json('[{"at_s":1,"fault":{"kind":"slow","node":"a","factor":0}}]'), r"factor is 0"),
    ],
)
def test_a_fault_that_cannot_be(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make()


def test_a_fault_before_the_beginning() -> None:
    with pytest.raises(ConfigError, match="begins before the world"):
        Schedule((Timed(-1.0, Heal()),))
