from __future__ import annotations

import threading

from rolecall.core.ids import RoleId
from rolecall.core.records import Record, StatusChange
from rolecall.observe.pump import Pump


def records(count: int) -> list[Record]:
    return [StatusChange(float(n), RoleId("a/b"), "ready") for n in range(count)]


def test_every_sink_gets_every_record_in_order_and_in_another_thread() -> None:
    first: list[Record] = []
    second: list[Record] = []
    threads: set[threading.Thread] = set()

    def sink(record: Record) -> None:
        threads.add(threading.current_thread())
        second.append(record)

    with Pump(first.append, sink, on_error=lambda error: None) as pump:
        for record in records(100):
            pump(record)
    assert first == second == records(100)
    assert threading.current_thread() not in threads


def test_a_sink_that_fails_is_told_of_and_left_out_and_the_others_go_on() -> None:
    errors: list[Exception] = []
    got: list[Record] = []

    def broken(record: Record) -> None:
        raise BrokenPipeError("nobody reads")

    with Pump(broken, got.append, on_error=errors.append) as pump:
        for record in records(3):
            pump(record)
    assert got == records(3)
    assert [str(error) for error in errors] == ["nobody reads"]


def test_a_sink_that_waits_does_not_hold_up_who_puts_records_in() -> None:
    go = threading.Event()
    got: list[Record] = []

    def slow(record: Record) -> None:
        go.wait()
        got.append(record)

    with Pump(slow, on_error=lambda error: None) as pump:
        for record in records(1000):
            pump(record)
        assert got == []
        go.set()
    assert got == records(1000)
