from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import RolecallError
from rolecall.runtime.lines import InLine, OutLine
from rolecall.wire.limits import LinkOverflow


class Link:
    """What an `OutLine` sends on: it takes so many messages, and then has no room until it is emptied."""

    def __init__(self, room: int = 1_000) -> None:
        self.room = room
        self.sent: list[tuple[str, int]] = []
        self.failed: list[str] = []
        self._waiting: list[Callable[[], None]] = []
        self.line = OutLine[str](self._send, lambda message, _: self.failed.append(message), self._waiting.append)

    def _send(self, message: str, order: int) -> None:
        if message.startswith("bad"):
            raise RolecallError(message)
        if not self.room:
            raise LinkOverflow("b", "frames", 1, 1)
        self.room -= 1
        self.sent.append((message, order))

    def empty(self, room: int = 1_000) -> None:
        """Have room again, and say so."""
        self.room = room
        waiting, self._waiting[:] = self._waiting.copy(), []
        for go_on in waiting:
            go_on()


def test_messages_are_numbered_in_their_order() -> None:
    link = Link()
    assert [link.line.submit(text) for text in "abc"] == [True] * 3
    assert link.sent == [("a", 0), ("b", 1), ("c", 2)]


def test_what_the_link_has_no_room_for_goes_when_it_has() -> None:
    link = Link(room=1)
    assert [link.line.submit(text) for text in "abc"] == [True, False, False]
    link.empty(room=1)
    assert link.sent == [("a", 0), ("b", 1)]
    link.empty()
    assert link.sent == [("a", 0), ("b", 1), ("c", 2)]


def test_what_came_back_goes_first_and_under_its_old_number() -> None:
    link = Link()
    for text in "abcd":
        link.line.submit(text)
    link.sent.clear()
    for text, order in (("b", 1), ("c", 2), ("d", 3)):
        link.line.refused(text, order)
    assert link.line.blocked and not link.line.submit("e")
    link.line.ready()
    assert link.sent == [("b", 1), ("c", 2)]
    link.line.ready()
    assert link.sent == [("b", 1), ("c", 2), ("d", 3), ("e", 4)]


def test_one_that_cannot_be_sent_has_no_number() -> None:
    link = Link(room=0)
    for text in ("a", "bad", "c"):
        link.line.submit(text)
    link.empty()
    assert (link.sent, link.failed) == ([("a", 0), ("c", 1)], ["bad"])


def test_one_that_was_kept_can_be_dropped_and_one_with_a_number_cannot() -> None:
    link = Link(room=1)
    link.line.submit("a")
    link.line.submit("b")
    assert not link.line.forget("a")
    assert link.line.forget("b")
    link.empty()
    assert link.sent == [("a", 0)]


def test_nothing_goes_once_the_other_end_is_gone() -> None:
    link = Link(room=2)
    for text in "abcd":
        link.line.submit(text)
    link.line.refused("b", 1)
    assert link.line.drop() == ["b", "c", "d"]
    link.empty()
    link.line.ready()
    assert link.sent == [("a", 0), ("b", 1)]
    assert not link.line.blocked


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 4))
def test_each_message_is_taken_once_and_in_order_whatever_is_refused(patience: list[int], mailbox: int) -> None:
    """The two ends together: a mailbox that is emptied now and then, at the end of a link of any delay."""
    taken: list[int] = []
    on_the_way: list[tuple[int, int]] = []
    end, held = InLine(), 0
    line = OutLine[int](lambda message, order: on_the_way.append((message, order)), lambda *_: None, lambda _: None)

    def arrive() -> None:
        nonlocal held
        message, order = on_the_way.pop(0)
        if not end.is_next(order) or held >= mailbox:
            line.refused(message, order)
            return
        held += 1
        taken.append(message)
        if end.took():
            line.ready()

    for number, wait in enumerate(patience):
        line.submit(number)
        for _ in range(min(wait, len(on_the_way))):
            arrive()
    for _ in range(200):
        held = 0
        while on_the_way:
            arrive()
        line.ready()
    assert taken == list(range(len(patience)))
