"""What carries: order, cuts that hold or break, healing, crashes."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rolecall.sim.courier import Courier
from rolecall.sim.loop import VirtualLoop
from rolecall.sim.network import Network, Path
from rolecall.sim.simulate import simulate


class Two:
    """A connection between `a` and `b`, one second apart."""

    def __init__(self, path: Path | None = None, seed: int = 0) -> None:
        self.loop = asyncio.get_running_loop()
        assert isinstance(self.loop, VirtualLoop)
        self.courier = Courier(Network(seed, path or Path(latency_s=1.0)), self.loop)
        self.broken: list[tuple[float, str, str]] = []
        self.arrived: list[tuple[float, Any]] = []
        self.connection = self.courier.connect("a", "b", self.break_)

    def break_(self, node: str, reason: str) -> None:
        self.broken.append((self.loop.time(), node, reason))

    def send(self, item: Any, size: int = 1) -> None:
        self.connection.there.carry(size, self.take, item)

    def take(self, item: Any) -> None:
        self.arrived.append((self.loop.time(), item))


def test_what_is_sent_arrives_in_order() -> None:
    async def main() -> None:
        two = Two()
        two.send(1)
        await asyncio.sleep(0.5)
        two.send(2)
        assert two.connection.there.under_way == 2
        await asyncio.sleep(2)
        assert two.arrived == [(1.0, 1), (1.5, 2)]
        assert two.connection.there.under_way == 0

    simulate(main)


def test_a_cut_may_break_connections() -> None:
    async def main() -> None:
        two = Two()
        two.send(1)
        await asyncio.sleep(0.5)
        two.courier.cut("b", "a", both=False)
        await asyncio.sleep(2)
        reason = "the connection was reset"
        assert two.broken == [(0.5, "a", reason), (0.5, "b", reason)]
        two.courier.heal()
        two.send(2)
        await asyncio.sleep(2)
        assert two.arrived == []
        assert not two.courier.connections

    simulate(main)


def test_a_cut_may_hold_what_is_sent_until_it_is_healed() -> None:
    async def main() -> None:
        two = Two()
        two.send(1)
        await asyncio.sleep(0.5)
        token = two.courier.cut("a", "b", how="silence")
        two.send(2)
        await asyncio.sleep(2)
        two.send(3)
        assert two.arrived == []
        assert two.connection.there.under_way == 3
        two.courier.mend(token)
        two.send(4)
        await asyncio.sleep(2)
        assert two.arrived == [(3.5, 1), (3.5, 2), (3.5, 3), (3.5, 4)]
        assert not two.courier.holding

    simulate(main)


def test_two_cuts_are_healed_when_both_are() -> None:
    async def main() -> None:
        two = Two()
        cut, alone = two.courier.cut("a", "b", how="silence"), two.courier.isolate("b", how="silence")
        two.send(1)
        two.courier.mend(cut)
        await asyncio.sleep(5)
        assert two.arrived == []
        two.courier.mend(alone)
        await asyncio.sleep(5)
        assert two.arrived == [(6.0, 1)]

    simulate(main)


def test_a_partition_leaves_those_within_alone() -> None:
    async def main() -> None:
        two = Two()
        two.courier.partition([["a", "b"], ["c"]])
        two.send(1)
        await asyncio.sleep(1.5)
        assert two.arrived == [(1.0, 1)]
        assert two.broken == []

    simulate(main)


def test_a_crash_is_silent_or_is_not() -> None:
    async def main() -> None:
        two = Two()
        two.send(1)
        two.courier.down("b")
        await asyncio.sleep(5)
        assert two.arrived == two.broken == []
        other = Two()
        other.courier.down("b", how="reset")
        await asyncio.sleep(1)
        assert other.broken == [(5.0, "a", "the process at the other end is gone")]

    simulate(main)


Step = st.tuples(st.sampled_from(["send", "send", "cut", "isolate", "heal"]), st.floats(0, 0.3), st.integers(1, 10_000))


@given(st.lists(Step, max_size=30), st.integers(0, 3))
def test_nothing_is_lost_or_overtaken_by_silence(steps: list[tuple[str, float, int]], seed: int) -> None:
    """Whatever is cut and healed meanwhile, all arrives in order once everything is healed."""

    async def main() -> None:
        two, sent = Two(Path(latency_s=0.1, jitter_s=0.2, bandwidth_bps=1e6, loss=0.05), seed), 0
        for what, pause_s, size in steps:
            await asyncio.sleep(pause_s)
            if what == "send":
                two.send(sent, size)
                sent += 1
            elif what == "cut":
                two.courier.cut("a", "b", both=False, how="silence")
            elif what == "isolate":
                two.courier.isolate("b", how="silence")
            else:
                two.courier.heal()
        two.courier.heal()
        await asyncio.sleep(1_000)
        assert [item for _, item in two.arrived] == list(range(sent))
        assert not two.broken

    simulate(main)
