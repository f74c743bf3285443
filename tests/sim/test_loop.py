"""The loop in virtual time: what moves it, in which order tasks take their steps, what it refuses, when it gives up."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import numpy as np
import pytest

import rolecall as rc
from rolecall.core.errors import ConfigError
from rolecall.core.place import HERE
from rolecall.sim.errors import Endless, NotSimulated, Stuck
from rolecall.sim.loop import VirtualLoop
from rolecall.wire.daemon import daemon


def loop() -> VirtualLoop:
    found = asyncio.get_running_loop()
    assert isinstance(found, VirtualLoop)
    return found


# ------------------------------------------------------------------------------------------ time


def test_a_year_passes_at_once() -> None:
    async def main() -> tuple[float, float]:
        began = time.perf_counter()
        await anyio.sleep(365 * 86_400)
        return anyio.current_time(), time.perf_counter() - began

    virtual_s, wall_s = rc.simulate(main)
    assert virtual_s == 365 * 86_400
    assert wall_s < 1


def test_timers_go_off_in_order_and_equal_ones_as_they_were_set() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        for name, at_s in (("c", 2.0), ("a", 1.0), ("d", 2.0), ("b", 1.0)):
            loop().call_at(at_s, seen.append, name)
        dropped = loop().call_later(1.5, seen.append, "never")
        dropped.cancel()
        await asyncio.sleep(3)
        return seen

    assert rc.simulate(main) == ["a", "b", "c", "d"]


def test_deadlines_of_asyncio_and_anyio_are_virtual() -> None:
    async def main() -> list[float]:
        found = []
        with anyio.move_on_after(5) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        found.append(anyio.current_time())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await asyncio.Event().wait()
        found.append(anyio.current_time())
        return found

    assert rc.simulate(main) == [5.0, 12.0]


def test_many_timers_that_are_cancelled_are_forgotten() -> None:
    async def main() -> int:
        for _ in range(20_000):
            loop().call_later(1e9, print).cancel()
        return loop().agenda.timers.size

    assert rc.simulate(main) < 3_000


def test_each_node_has_its_clock() -> None:
    async def main() -> list[tuple[str, float, float]]:
        world, seen = loop(), []

        async def sleeper(node: str) -> None:
            HERE.set(node)
            await anyio.sleep(10)
            seen.append((node, world.now_s(), world.time()))

        world.skew("fast", 100.0, 2.0)
        world.skew("slow", -1.0, 0.5)
        await asyncio.gather(*[asyncio.create_task(sleeper(name)) for name in ("fast", "slow", "right")])
        world.skew("fast", 0.0, 1.0)  # it goes on from what it shows
        context = world.context("fast")
        seen.append(("fast", world.now_s(), context.run(world.time)))
        return seen

    assert rc.simulate(main) == [
        ("fast", 5.0, 110.0), ("right", 10.0, 10.0), ("slow", 20.0, 9.0), ("fast", 20.0, 140.0),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------ order


def turns(order: str, seed: int) -> list[int]:
    async def main() -> list[int]:
        seen: list[int] = []

        async def step(number: int) -> None:
            for _ in range(4):
                await asyncio.sleep(0)
                seen.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(step, number)
        return seen

    return rc.simulate(main, seed=seed, order=order)


def test_the_seed_chooses_the_order() -> None:
    assert turns("fifo", 1) == turns("fifo", 2) == [0, 1, 2, 3, 4, 5] * 4
    for order in ("shuffled", "adversarial"):
        assert turns(order, 1) == turns(order, 1)
        assert len({tuple(turns(order, seed)) for seed in range(20)}) == 20
        for step in range(4):  # nobody is left out
            assert sorted(turns(order, 3)[6 * step : 6 * step + 6]) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match="Did you mean 'shuffled'"):
        turns("shuffle", 1)


def test_an_adversary_holds_on_to_its_choice() -> None:
    rounds = [tuple(turns("adversarial", 5)[6 * step : 6 * step + 6]) for step in range(4)]
    assert len(set(rounds)) < 3


@pytest.mark.parametrize("seed", range(5))
def test_callbacks_keep_their_place(seed: int) -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def step(name: str) -> None:
            seen.append(name)

        def callback(name: str) -> None:
            seen.append(name)

        waiting = [asyncio.create_task(step(name)) for name in ("a1", "a2")]
        loop().call_soon(callback, "first")
        waiting += [asyncio.create_task(step(name)) for name in ("b1", "b2")]
        loop().call_soon(callback, "second")
        await asyncio.wait(waiting)
        return [entry[0] for entry in seen]

    assert rc.simulate(main, seed=seed) == ["a", "a", "f", "b", "b", "s"]


def test_what_is_cancelled_together_is_cancelled_in_the_same_order() -> None:
    async def main() -> list[int]:
        seen: list[int] = []

        async def wait(number: int) -> None:
            try:
                with anyio.CancelScope():
                    await anyio.sleep_forever()
            finally:
                seen.append(number)

        junk = []
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                junk.append(bytearray(random.SystemRandom().randrange(200)))  # so that addresses differ
                tasks.start_soon(wait, number)
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()
        return seen

    first = rc.simulate(main, seed=1)
    assert sorted(first) == list(range(40))
    assert all(rc.simulate(main, seed=1) == first for _ in range(5))


def test_common_generators_are_seeded_and_given_back() -> None:
    async def main() -> tuple[float, float]:
        return random.random(), float(np.random.random())

    random.seed(1)
    np.random.seed(1)
    expected = random.random(), float(np.random.random())
    random.seed(1)
    np.random.seed(1)
    assert rc.simulate(main, seed=3) == rc.simulate(main, seed=3) != rc.simulate(main, seed=4)
    assert (random.random(), float(np.random.random())) == expected


# ------------------------------------------------------------------------------------------ giving up


def test_who_waits_is_named_when_nothing_can_happen() -> None:
    async def waits_for_godot(event: anyio.Event) -> None:
        await event.wait()

    async def main() -> None:
        await anyio.sleep(2.5)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waits_for_godot, anyio.Event(), name="estragon")

    with pytest.raises(
        Stuck, match=r"(?s)At 2\.5 s nothing.*estragon: in waits_for_godot \(.*test_loop\.py:\d+\)"
    ) as info:
        rc.simulate(main)
    assert len(info.value.waiting) == 2


def test_to_sleep_for_ever_is_to_wait_for_nothing() -> None:
    with pytest.raises(Stuck, match="At 0 s"):
        rc.simulate(anyio.sleep_forever)


def test_daemons_do_not_keep_the_world_alive() -> None:
    beats: list[float] = []

    async def main() -> None:
        def beat() -> None:
            beats.append(anyio.current_time())
            with daemon():
                loop().call_later(0.4, beat)

        beat()
        await anyio.sleep(100)
        await anyio.Event().wait()

    with pytest.raises(Stuck, match="At 100 s"):
        rc.simulate(main)
    assert 100 < beats[-1] < 200


def test_going_round_in_circles_is_noticed() -> None:
    async def spins() -> None:
        for _ in itertools.repeat(0):
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.sleep(1)
        await asyncio.create_task(spins(), name="spinner")

    with pytest.raises(Endless, match=r"1 s.*Busiest at the end: spinner"):
        rc.simulate(main, instant_steps=2_000)


def test_errors_and_what_is_left_end_with_the_simulation() -> None:
    ended: list[str] = []

    async def lingers() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("lingers")

    async def main() -> None:
        task = asyncio.create_task(lingers())
        await anyio.sleep(1)
        assert not task.done()
        raise ValueError("as it was raised")

    with pytest.raises(ValueError, match="as it was raised"):
        rc.simulate(main)
    assert ended == ["lingers"]


async def test_inside_another_loop_it_gets_a_thread() -> None:
    async def main() -> float:
        await anyio.sleep(50)
        return anyio.current_time()

    def outside() -> float:
        return rc.simulate(main)

    assert await anyio.to_thread.run_sync(outside) == 50


@pytest.mark.may_block("the loop waits for the simulation, as in a notebook")
async def test_on_another_loop_it_runs_as_well() -> None:
    async def main() -> float:
        await anyio.sleep(50)
        return anyio.current_time()

    assert rc.simulate(main) == 50


# ------------------------------------------------------------------------------------------ refusals


async def _subprocess() -> None:
    await anyio.run_process(["true"])


async def _thread() -> None:
    await anyio.to_thread.run_sync(print)


async def _executor() -> None:
    await asyncio.to_thread(print)


async def _socket() -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", 1))


async def _signal() -> None:
    with anyio.open_signal_receiver(signal.SIGTERM):
        pass


async def _server() -> None:
    await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)


async def _datagrams() -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 1))


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (_subprocess, "a subprocess"), (_thread, "a worker thread"), (_executor, "a worker thread"),
        (_socket, "a socket"), (_signal, "a signal"), (_server, "a server"), (_datagrams, "a datagram socket"),
    ],
)  # fmt: skip
def test_what_is_not_simulated_is_refused(ask: Callable[[], Coroutine[Any, Any, None]], what: str) -> None:
    async def main() -> None:
        HERE.set("edge")
        await asyncio.create_task(ask(), name="edge/worker.main")

    with pytest.raises(NotSimulated, match=rf"edge/worker\.main on node edge \(.*\) asks for {what}"):
        rc.simulate(main)


def test_threads_can_be_done_inline() -> None:
    async def main() -> tuple[int, str]:
        def work(number: int) -> int:
            anyio.from_thread.check_cancelled()
            return number + anyio.from_thread.run_sync(lambda: 1)

        def fail() -> None:
            raise KeyError("from inside")

        with pytest.raises(KeyError, match="from inside"):
            await asyncio.to_thread(fail)
        with anyio.CancelScope() as scope:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                found = await asyncio.to_thread(work, 1)
        return found, await anyio.to_thread.run_sync(str, 7)

    assert rc.simulate(main, threads="inline") == (2, "7")


# ------------------------------------------------------------------------------------------ nodes that stand still


def test_a_paused_node_does_nothing_until_it_is_resumed() -> None:
    async def main() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []

        async def ticks(node: str) -> None:
            HERE.set(node)
            for _ in range(3):
                await anyio.sleep(1)
                seen.append((node, anyio.current_time()))

        tasks = [asyncio.create_task(ticks(node)) for node in ("a", "b")]
        await anyio.sleep(1.5)
        loop().agenda.pause("a")
        await anyio.sleep(8.5)
        loop().agenda.resume("a")
        await asyncio.wait(tasks)
        return seen

    assert sorted(rc.simulate(main)) == [("a", 1), ("a", 10), ("a", 11), ("b", 1), ("b", 2), ("b", 3)]


def test_a_context_of_a_node_is_fresh_each_time() -> None:
    async def main() -> None:
        HERE.set("a")
        assert copy_context()[HERE] == "a"
        assert loop().context("b").run(HERE.get) == "b"
        loop().context("b").run(HERE.set, "c")
        assert loop().context("b").run(HERE.get) == "b"
        assert loop().context(None).run(HERE.get) is None

    rc.simulate(main)


def test_a_way_of_doing_threads_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match=r"threads is 'real'\. Give 'refuse' or 'inline'"):
        rc.simulate(lambda: asyncio.sleep(1), threads="real")  # type: ignore[arg-type]
