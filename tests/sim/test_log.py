"""The event log: what is kept, and what its digest depends on."""

from __future__ import annotations

import numpy as np

from rolecall.core.ids import RoleId
from rolecall.core.records import DeadLetter, LogLine, Metric, StatusChange
from rolecall.sim.log import EventLog


def filled(**facts: object) -> EventLog:
    log = EventLog(trace=True)
    log.add(1.0, "a", "thing", **facts)
    return log


def test_the_digest_depends_on_what_happened_and_on_nothing_else() -> None:
    assert filled(x=1).digest == filled(x=1).digest != filled(x=2).digest
    assert filled(x=np.float64(0.5)).digest == filled(x=0.5).digest
    one, other = object(), object()
    assert filled(x=repr(one)).digest == filled(x=other).digest
    with_packet, without = filled(), filled()
    with_packet.packet(1.0, with_packet.ends("a", "b"), 100)
    assert with_packet.digest != without.digest
    assert [(packet.src, packet.dst, packet.size_bytes) for packet in with_packet.packets] == [("a", "b", 100)]


def test_records_of_every_kind_are_kept() -> None:
    log, role = EventLog(), RoleId("a/r")
    log.record(1.0, "a", StatusChange(0.9, role, "ready"))
    log.record(2.0, "a", Metric(2.0, role, {"loss": 0.5, "node": "n"}))
    log.record(3.0, "a", DeadLetter(3.0, "event", role, "news", "nobody"))
    log.record(4.0, "", LogLine(4.0, "info", "sim", "text"))
    log.packet(5.0, log.ends("a", "b"), 1)
    assert [event.kind for event in log.events] == ["status", "metric", "dead-letter", "log"]
    assert log.events[1].facts == {"role": "a/r", ".loss": 0.5, ".node": "n"}
    assert str(log.events[0]).split() == ["1.000000", "a", "status", "role=a/r", "status=ready"]
    assert not log.packets  # it was not asked to keep them
