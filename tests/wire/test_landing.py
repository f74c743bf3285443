"""Memory for large messages: used again when nobody has it any more, and never before."""

from __future__ import annotations

import numpy as np
import pytest

from rolecall.core.ids import RoleId
from rolecall.wire.frames import Call
from rolecall.wire.landing import KEPT_S, WORTH_BYTES, Landing
from rolecall.wire.session import Session


def address(view: memoryview) -> int:
    """Return where memory is."""
    return int(np.frombuffer(view, np.uint8).__array_interface__["data"][0])


def test_what_nobody_has_any_more_is_used_again() -> None:
    landing = Landing()
    view = landing.take(WORTH_BYTES + 100)
    where = address(view)
    del view
    again = landing.take(WORTH_BYTES)
    assert address(again) == where
    assert len(again) == WORTH_BYTES
    assert landing.kept_bytes == WORTH_BYTES + 100


def test_what_somebody_has_is_not() -> None:
    landing = Landing()
    view = landing.take(WORTH_BYTES)
    array = np.frombuffer(view.toreadonly()[8:24], np.float32)  # all that is left of it
    where = address(view)
    del view
    other = landing.take(WORTH_BYTES)
    assert address(other) != where
    del array
    assert address(landing.take(WORTH_BYTES)) == where


def test_small_messages_have_memory_of_their_own() -> None:
    landing = Landing()
    assert len(landing.take(WORTH_BYTES - 1)) == WORTH_BYTES - 1
    assert landing.kept_bytes == 0


def test_what_is_free_and_does_not_fit_is_given_back_before_there_is_more() -> None:
    landing = Landing()
    landing.take(2 * WORTH_BYTES)
    assert landing.kept_bytes == 2 * WORTH_BYTES
    landing.take(WORTH_BYTES)  # in twice as much, half of it would lie idle
    assert landing.kept_bytes == WORTH_BYTES


def test_no_more_than_two_are_known() -> None:
    landing = Landing()
    views = [landing.take(WORTH_BYTES) for _ in range(5)]
    assert landing.kept_bytes == 2 * WORTH_BYTES
    assert len({address(view) for view in views}) == 5


def test_what_is_not_used_for_long_is_given_back() -> None:
    landing = Landing()
    landing.take(WORTH_BYTES)
    landing.trim(100.0)
    landing.trim(100.0 + KEPT_S)
    assert landing.kept_bytes == WORTH_BYTES
    landing.take(WORTH_BYTES)
    landing.trim(101.0 + KEPT_S)
    landing.trim(101.0 + 2 * KEPT_S)
    assert landing.kept_bytes == WORTH_BYTES
    landing.trim(101.1 + 2 * KEPT_S)
    assert landing.kept_bytes == 0


@pytest.mark.parametrize("keeps", [True, False])
def test_a_model_that_comes_each_round_arrives_in_the_same_memory(keeps: bool) -> None:
    landing = Landing()
    left, right = Session(peer="right"), Session(peer="left", landing=landing)
    left.connected(right.acks)
    right.connected(left.acks)
    payloads, places = [], set()
    for round in range(4):
        left.send(Call(round, RoleId("b/r"), "take", RoleId("a/r"), round), [bytes([round]) * WORTH_BYTES])
        received = []
        while not received:
            chunk = left.next_chunk()
            received = right.receive([memoryview(bytes(segment)) for segment in chunk or ()]) if chunk else []
            for answer in iter(right.next_chunk, None):
                left.receive([memoryview(bytes(segment)) for segment in answer])
        [(_, [payload])] = received
        places.add(address(payload))
        payloads.append(payload if keeps else None)
        if keeps:
            assert [bytes(kept[:2]) for kept in payloads] == [bytes([n]) * 2 for n in range(round + 1)]
        del payload, received
    assert len(places) == (4 if keeps else 1)
