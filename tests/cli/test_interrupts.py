from __future__ import annotations

import signal
import threading

import anyio
import pytest

from rolecall.cli.failures import Aborted
from rolecall.cli.interrupts import Interrupts

NEVER = 1000.0


class Words:
    def __init__(self) -> None:
        self.notices: list[str] = []
        self.last: list[int] = []

    def interrupts(self) -> Interrupts:
        return Interrupts(self.notices.append, self.last.append)


@pytest.mark.parametrize("uvloop", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains(number: signal.Signals, uvloop: bool) -> None:
    words = Words()

    async def body(stop: anyio.Event) -> str:
        signal.raise_signal(number)
        await stop.wait()
        return "drained"

    with words.interrupts() as interrupts:
        assert anyio.run(interrupts.run, body, backend_options={"use_uvloop": uvloop}) == "drained"
    assert words.notices == ["Stopping in good order; once more to abort."]


@pytest.mark.parametrize("uvloop", [False, True])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_aborts(
    number: signal.Signals, code: int, uvloop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[tuple[float, list[object]]] = []
    cancelled: list[bool] = []

    class Timer:
        daemon = False

        def __init__(self, interval: float, function: object, args: list[object]) -> None:
            timers.append((interval, args))

        def start(self) -> None:
            pass

        def cancel(self) -> None:
            cancelled.append(True)

    monkeypatch.setattr(threading, "Timer", Timer)
    words = Words()

    async def body(stop: anyio.Event) -> None:
        signal.raise_signal(number)
        await stop.wait()
        signal.raise_signal(number)
        await anyio.sleep(NEVER)

    with words.interrupts() as interrupts, pytest.raises(Aborted) as aborted:
        anyio.run(interrupts.run, body, backend_options={"use_uvloop": uvloop})
    assert aborted.value.exit_code == code
    assert timers == [(2.0, [code])]  # what would end a process that does not come down
    assert cancelled == [True]  # this one did


def test_a_stop_asked_for_before_the_run_counts() -> None:
    async def body(stop: anyio.Event) -> bool:
        return stop.is_set()

    with Words().interrupts() as interrupts:
        interrupts.stop()
        assert anyio.run(interrupts.run, body)
        interrupts.stop()  # after the run: too late to matter


def test_a_stop_may_come_from_another_thread() -> None:
    async def body(stop: anyio.Event) -> str:
        threading.Thread(target=interrupts.stop).start()
        await stop.wait()
        return "drained"

    with Words().interrupts() as interrupts:
        assert anyio.run(interrupts.run, body) == "drained"


def test_before_the_run_one_signal_aborts() -> None:
    with Words().interrupts(), pytest.raises(Aborted):
        signal.raise_signal(signal.SIGTERM)


def test_the_handlers_before_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Words().interrupts():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    found: list[object] = []

    def look() -> None:
        with Words().interrupts():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]
