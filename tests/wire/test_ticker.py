from __future__ import annotations

import asyncio

from rolecall.wire.ticker import Ticker


class Loop:
    """Takes the place of a loop; its clock is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when: float, call: object, *arguments: object) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, call, arguments, self, None)  # type: ignore[arg-type]
        self.timers.append(timer)
        return timer

    def _timer_handle_cancelled(self, handle: object) -> None:
        pass

    def get_debug(self) -> bool:
        return False

    def run_at(self, now_s: float) -> None:
        self.now_s = now_s
        self.timers.pop()._run()


def test_it_ticks_and_tells_of_stalls() -> None:
    loop, ticks, stalls = Loop(), [], []
    ticker = Ticker(0.5, ticks.append, stalls.append)
    ticker._again(loop)  # type: ignore[arg-type]
    loop.run_at(100.5)
    loop.run_at(101.3)  # a little late
    assert stalls == []
    loop.run_at(105.0)  # the loop was blocked
    loop.run_at(105.5)
    assert ticks == [100.5, 101.3, 105.0, 105.5]
    assert [round(stall, 6) for stall in stalls] == [3.2]
    ticker.stop()
    assert loop.timers[0].cancelled()
