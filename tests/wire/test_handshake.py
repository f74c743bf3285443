from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.wire.handshake import Accepting, Confirm, Dialling, Hello, encode_refused
from rolecall.wire.heads import Acks
from rolecall.wire.limits import Malformed
from rolecall.wire.peers import LinkRefused, Peer, RefusedByPeer

SECRET = b"a secret of one run"
A, B = Peer("a", 1, None, ("shm",)), Peer("b", 2, "127.0.0.1:2")
CONFIRM = Confirm(session=7, connection=3, resumed=True, acks=Acks(1, 2, 3))


def travel(segments: list[Any]) -> list[memoryview]:
    return [memoryview(bytes(segment)) for segment in segments]


def sides(secret_a: bytes | None = SECRET, secret_b: bytes | None = SECRET) -> tuple[Dialling, Accepting]:
    return Dialling(A, secret_a, "b's address"), Accepting(B, secret_b, "a's address")


@pytest.mark.parametrize("secret", [SECRET, None])
def test_both_sides_get_to_know_each_other(secret: bytes | None) -> None:
    a, b = sides(secret, secret)
    assert b.greeted(travel(a.hello())) == A
    assert a.welcomed(travel(b.welcome())) == B
    assert b.confirmed(travel(a.confirm(CONFIRM))) == CONFIRM
    assert a.established(travel(b.established(Acks(4, 5, 6)))).acks == Acks(4, 5, 6)


def test_the_dialler_finds_another_secret_first() -> None:
    a, b = sides(SECRET, b"another secret .")
    b.greeted(travel(a.hello()))
    with pytest.raises(LinkRefused, match="have different secrets") as raised:
        a.welcomed(travel(b.welcome()))
    assert raised.value.code == "secret" and not isinstance(raised.value, RefusedByPeer)


def test_the_other_side_checks_too() -> None:
    a, b = sides(None, SECRET)
    b.greeted(travel(a.hello()))
    a.welcomed(travel(b.welcome()))
    with pytest.raises(LinkRefused, match="'a' has no secret, and node 'b' has one"):
        b.confirmed(travel(a.confirm(CONFIRM)))


def test_a_proof_is_good_for_one_handshake_only() -> None:
    a, b = sides()
    hello = travel(a.hello())
    b.greeted(hello)
    a.welcomed(travel(b.welcome()))
    confirm = travel(a.confirm(CONFIRM))
    b.confirmed(confirm)
    _, again = sides()
    again.greeted(hello)
    again.welcome()
    with pytest.raises(LinkRefused, match="different secrets"):
        again.confirmed(confirm)


def test_a_proof_of_one_side_is_none_of_the_other() -> None:
    a, b = sides()
    hello = travel(a.hello())
    b.greeted(hello)
    welcome = travel(b.welcome())
    mirror = Accepting(B, SECRET, "x")
    mirror.greeted(hello)
    mirror.welcome()
    with pytest.raises((LinkRefused, Malformed)):
        mirror.confirmed(welcome)


@pytest.mark.parametrize("position", range(0, 60, 3))
def test_what_is_changed_on_the_way_is_noticed(position: int) -> None:
    a, b = sides()
    hello = bytearray(a.hello()[0])
    hello[position % len(hello)] ^= 1
    try:
        b.greeted([memoryview(hello)])
        a.welcomed(travel(b.welcome()))
    except (LinkRefused, Malformed):
        return
    raise AssertionError("nobody noticed")


def test_the_secret_does_not_travel() -> None:
    a, b = sides()
    said = a.hello()
    b.greeted(travel(said))
    said += b.welcome()
    assert all(SECRET not in bytes(segment) for segment in said)


def test_a_refusal_ends_any_step() -> None:
    refused = travel(encode_refused("limit", "too many links"))
    a, b = sides()
    a.hello()
    for hear in (a.welcomed, a.established, b.greeted, b.confirmed):
        with pytest.raises(RefusedByPeer, match="too many links") as raised:
            hear(refused)
        assert raised.value.code == "limit"


def test_steps_out_of_order_are_refused() -> None:
    a, b = sides()
    with pytest.raises(Malformed, match="'hello' came, where 'welcome' was expected"):
        a.welcomed(travel(b._say(Hello(protocol_min=1, protocol_max=1, peer=B, nonce=bytes(16)))))


def test_unknown_keys_are_ignored_and_missing_ones_are_not() -> None:
    a, b = sides()
    hello = msgspec.msgpack.decode(a.hello()[0])
    assert b.greeted([memoryview(msgspec.msgpack.encode({**hello, "later": [1, {"x": 2}]}))]) == A
    del hello["nonce"]
    with pytest.raises(Malformed, match="missing required field `nonce`"):
        b.greeted([memoryview(msgspec.msgpack.encode(hello))])


@pytest.mark.parametrize(
    ("first", "last", "fine"), [(1, 1, True), (1, 9, True), (0, 1, True), (0, 0, False), (2, 9, False)]
)
def test_a_common_version_is_found(first: int, last: int, fine: bool) -> None:
    _, b = sides()
    hello = msgspec.msgpack.encode(Hello(protocol_min=first, protocol_max=last, peer=A, nonce=bytes(16)))
    if fine:
        b.greeted([memoryview(hello)])
        assert msgspec.msgpack.decode(b.welcome()[0])["protocol"] == 1
    else:
        with pytest.raises(LinkRefused, match=r"node 'a' speaks version.* and the other node version 1"):
            b.greeted([memoryview(hello)])


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_no_bytes_do_harm(segments: list[bytes]) -> None:
    for hear in (sides()[0].welcomed, sides()[0].established, sides()[1].greeted, sides()[1].confirmed):
        with pytest.raises((Malformed, LinkRefused)):
            hear(travel(segments))


@given(st.data())
def test_no_mutated_hello_does_harm(data: st.DataObject) -> None:
    a, b = sides()
    hello = bytearray(a.hello()[0])
    for _ in range(data.draw(st.integers(1, 5))):
        hello[data.draw(st.integers(0, len(hello) - 1))] = data.draw(st.integers(0, 255))
    try:
        b.greeted([memoryview(hello)])
    except (Malformed, LinkRefused):
        pass


@pytest.mark.parametrize(
    "peer",
    [
        Peer("a\nWARNING all is lost", 1),
        Peer("a/b", 1),
        Peer("", 1),
        Peer("a", 1, "an address\n"),
        Peer("a", 1, None, ("x y",)),
        Peer("a", -1),
        Peer("a", 1, None, ("x",) * 65),
    ],
)
def test_names_and_words_are_what_they_should_be(peer: Peer) -> None:
    with pytest.raises(Malformed, match="no handshake"):
        sides()[1].greeted(travel(Dialling(peer, SECRET, "").hello()))


def test_a_reason_from_elsewhere_is_one_line() -> None:
    with pytest.raises(RefusedByPeer) as raised:
        sides()[0].welcomed(travel(encode_refused("limit", "full\n\x1b[31mWARNING all is lost")))
    assert raised.value.reason == "full??[31mWARNING all is lost"
