from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.wire.limits import Malformed
from rolecall.wire.shared_messages import (
    MESSAGE_BYTES,
    RELEASES_MAX,
    Announce,
    Greeting,
    Message,
    Offer,
    Release,
    Retire,
    decode_message,
    encode_message,
    greeting_of,
    is_from,
)

IDS = st.integers(0, 2**63 - 1)
MESSAGES = st.one_of(
    st.builds(Greeting, IDS, st.binary(max_size=64), IDS, IDS),
    st.builds(Announce, IDS, IDS),
    st.builds(Retire, IDS),
    st.builds(Release, st.lists(IDS, max_size=20)),
)
OFFER = Offer(f"rolecall-{7:032x}", 7, bytes(range(32)))


@given(MESSAGES)
def test_messages_come_as_they_went(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@given(st.binary(max_size=100))
def test_nonsense_is_malformed(data: bytes) -> None:
    try:
        message = decode_message(data)
    except Malformed:
        return
    assert isinstance(message, Message)


@given(MESSAGES, st.data())
def test_damaged_messages_are_malformed_or_others(message: Message, data: st.DataObject) -> None:
    encoded = bytearray(encode_message(message))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(decode_message(bytes(encoded)), Message)
    except Malformed:
        pass


def test_the_largest_message_fits() -> None:
    assert len(encode_message(Release([2**63 - 1] * RELEASES_MAX))) <= MESSAGE_BYTES
    with pytest.raises(Malformed):
        decode_message(encode_message(Release([1] * (RELEASES_MAX + 1))))


@pytest.mark.parametrize("side", ["dialler", "acceptor"])
def test_a_greeting_shows_the_key_of_its_offer_and_side(side: str) -> None:
    greeting = greeting_of(OFFER, side, 1, 2)
    other = "dialler" if side == "acceptor" else "acceptor"
    assert is_from(greeting, OFFER, side) and not is_from(greeting, OFFER, other)
    assert not is_from(greeting, msgspec.structs.replace(OFFER, key=bytes(32)), side)
    assert not is_from(greeting, msgspec.structs.replace(OFFER, name=f"rolecall-{8:032x}"), side)
    assert not is_from(msgspec.structs.replace(greeting, proof=b""), OFFER, side)
    assert OFFER.key not in encode_message(greeting)


@pytest.mark.parametrize("name", ["", "rolecall-", "/tmp/.X11-unix/X0", f"rolecall-{7:032x}x", f"rolecall-{7:032X}\n"])
def test_an_offer_leads_to_no_other_socket(name: str) -> None:
    offer = msgspec.msgpack.encode(msgspec.structs.replace(OFFER, name=name))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(offer, type=Offer)
