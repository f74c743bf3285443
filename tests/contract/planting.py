"""Faults to be planted in the runtime: each puts one wrong line in the place of a right one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from rolecall.runtime.dispatcher import Dispatcher
from rolecall.runtime.group_calls import LocalGroupCall
from rolecall.runtime.inbound import Inbound
from rolecall.wire import frames as f
from rolecall.wire.heads import Acks, Batch
from rolecall.wire.inbox import Inbox
from rolecall.wire.session import Session


def no_duplicate_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither ask, on a new connection, what has come over the last one, nor see that something comes once more."""

    def known(inbox: Inbox, batch: Batch) -> int:
        inbox._expect(batch.lane, batch.first + len(batch.entries))
        return 0

    connected = Session.connected

    def forgetful(session: Session, peer_acks: Acks) -> None:
        outbox = session._outbox
        connected(session, Acks(outbox._control.base, outbox._normal.base, outbox._bulk.base))

    monkeypatch.setattr(Inbox, "_known", known)
    monkeypatch.setattr(Session, "connected", forgetful)


def acknowledged_then_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop what a full mailbox has no room for, as if it had been taken: its line goes on."""
    must_wait = Inbound._must_wait

    def dropping(inbound: Inbound, dispatcher: Dispatcher, frame: f.Call, segments: Sequence[memoryview]) -> bool:
        if must_wait(inbound, dispatcher, frame, segments):
            raise _Dropped
        return False

    call = Inbound.call

    def acknowledging(inbound: Inbound, frame: f.Call, segments: Sequence[memoryview]) -> None:
        try:
            call(inbound, frame, segments)
        except _Dropped:
            inbound._line(frame.caller, frame.to, frame.channel).took()

    monkeypatch.setattr(Inbound, "_must_wait", dropping)
    monkeypatch.setattr(Inbound, "call", acknowledging)


class _Dropped(Exception):
    pass


def lost_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do nothing when a cancellation comes."""
    monkeypatch.setattr(Inbound, "cancel", lambda inbound, number: None)


def unbounded_mailbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have room for everything."""
    monkeypatch.setattr(Dispatcher, "_fits", lambda dispatcher, size: True)


def order_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the answers of a group in the order in which they came."""

    def ordered(call: LocalGroupCall[Any], by_role: Mapping[Any, Any]) -> dict[Any, Any]:
        return dict(by_role)

    monkeypatch.setattr(LocalGroupCall, "_ordered", ordered)


PLANTS: Mapping[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no-duplicate-detection": no_duplicate_detection,
    "acknowledged-then-dropped": acknowledged_then_dropped,
    "lost-cancel": lost_cancel,
    "unbounded-mailbox": unbounded_mailbox,
    "order-of-arrival": order_of_arrival,
}
